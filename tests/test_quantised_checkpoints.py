"""A quantised checkpoint is refused by its method's name, wherever its tool has written that down."""

import shutil
from pathlib import Path

import pytest
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from tests.checkpoints import Shape, write_checkpoint
from tests.test_checkpoint_check import Change, refusal, write
from tests.test_failures import change_config


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("whole")
    write_checkpoint(directory, Shape())
    return directory


QUANTISED: dict[str, tuple[Change, str]] = {
    "FP8": (
        change_config(quantization_config={"fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}),
        "FP8",
    ),
    "AWQ": (change_config(quantization_config={"backend": "autoawq", "bits": 4, "quant_method": "awq"}), "AWQ"),
    "GPTQ": (change_config(quantization_config={"bits": 4, "desc_act": False, "quant_method": "gptq"}), "GPTQ"),
    "compressed-tensors": (
        change_config(quantization_config={"config_groups": {}, "quant_method": "compressed-tensors"}),
        "compressed-tensors",
    ),
    "compressed-tensors of old": (change_config(compression_config={"config_groups": {}}), "compressed-tensors"),
    "bitsandbytes": (
        change_config(quantization_config={"load_in_4bit": True, "quant_method": "bitsandbytes"}), "bitsandbytes"
    ),
    "bitsandbytes without a name": (change_config(quantization_config={"load_in_8bit": True}), "bitsandbytes"),
    "an algorithm": (change_config(quantization_config={"quant_algo": "W4A16_AWQ"}), "W4A16_AWQ"),
    "an algorithm below": (change_config(quantization_config={"quantization": {"quant_algo": "FP8"}}), "FP8"),
    "ModelOpt's own file": (
        write("hf_quant_config.json", '{"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}}'),
        "NVFP4",
    ),
    "GPTQ's own file": (write("quantize_config.json", '{"bits": 4, "group_size": 128, "desc_act": false}'), "GPTQ"),
    "AWQ's own file": (write("quant_config.json", '{"zero_point": true, "q_group_size": 128, "w_bit": 4}'), "AWQ"),
    "MLX": (change_config(quantization={"group_size": 64, "bits": 4}), "MLX"),
    "without a name": (change_config(quantization_config={"bits": 4}), "an unnamed method"),
    "a text": (change_config(quantization_config="fp8"), "FP8"),
} | {
    f"{method} of transformers": (change_config(quantization_config={"quant_method": method}), method.split("_4bit")[0])
    for method in AUTO_QUANTIZATION_CONFIG_MAPPING
    if not method.endswith("8bit")
}  # fmt: skip


@pytest.mark.parametrize("kind", QUANTISED)
def test_quantised_checkpoint_is_refused_by_its_methods_name(kind: str, whole: Path, tmp_path: Path) -> None:
    directory, (change_it, method) = tmp_path / "model", QUANTISED[kind]
    shutil.copytree(whole, directory)
    change_it(directory)
    assert f"the weights are quantised with {method.lower()};" in refusal(directory).lower()


@pytest.mark.parametrize("suffix", ["GGUF", "FP8", "AWQ", "GPTQ-Int8", "bnb-4bit"])
def test_quantised_repository_is_named_before_it_is_downloaded(suffix: str) -> None:
    said = refusal(f"Qwen/Qwen3-0.6B-{suffix}")
    assert f"{suffix.split('-')[0]} weights are not supported" in said
    assert "`make download MODEL=Qwen/Qwen3-0.6B`" in said
