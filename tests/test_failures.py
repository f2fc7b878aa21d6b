"""What a user got wrong is said in one line with exit code 2, before any chat is served."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from inference_server.checkpoint.check import require_usable
from inference_server.engine import control_groups
from inference_server.engine.control_groups import free_memory
from inference_server.engine.device import choose_device, require_memory
from inference_server.engine.model_loader import read_config
from inference_server.errors import StartupError
from inference_server.loading import load_parts
from tests.checkpoints import Shape, load_model, write_checkpoint
from tests.fakes import settings
from tests.programs import Program
from tests.test_machine_limits import v2_system

Breakage = Callable[[Path], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("whole")
    write_checkpoint(directory, Shape(shards=3))
    return directory


def change(name: str, **fields: object) -> Breakage:
    def change_file(directory: Path) -> None:
        path = directory / name
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change_file


def change_config(**fields: object) -> Breakage:
    return change("config.json", **fields)


def remove(name: str) -> Breakage:
    return lambda directory: (directory / name).unlink()


def truncate(directory: Path) -> None:
    shard = directory / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1000])


def forget_a_weight(directory: Path) -> None:
    index = directory / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] = {k: v for k, v in content["weight_map"].items() if "00003" not in v}
    index.write_text(json.dumps(content))


BREAKAGES: dict[str, tuple[Breakage, str]] = {
    "no config": (remove("config.json"), "no config.json there"),
    "config is not JSON": (lambda d: (d / "config.json").write_text("{"), "cannot be read"),
    "another architecture": (change_config(model_type="llama"), "a llama checkpoint; this server runs dense Qwen3"),
    "mixture of experts": (change_config(model_type="qwen3_moe"), "a qwen3_moe checkpoint"),
    "unknown architecture": (change_config(model_type="nonsense"), "a nonsense checkpoint; this server runs"),
    "no tokenizer": (remove("tokenizer.json"), "no tokenizer.json there"),
    "tokenizer is not JSON": (
        lambda d: (d / "tokenizer.json").write_text("{") and None,
        "cannot be read as a tokenizer",
    ),
    "no chat template": (remove("tokenizer_config.json"), "no chat template"),
    "a shard is missing": (remove("model-00002-of-00003.safetensors"), "model-00002-of-00003.safetensors is missing"),
    "a shard is truncated": (truncate, "model-00002-of-00003.safetensors is truncated"),
    "weights are missing": (forget_a_weight, "weights are missing"),
    "other shapes": (change_config(intermediate_size=96), "has shape"),
    "too many layers": (change_config(num_hidden_layers=4, layer_types=["full_attention"] * 4), "weights are missing"),
    "too few layers": (change_config(num_hidden_layers=2, layer_types=["full_attention"] * 2), "unexpected weight"),
    "layers do not agree": (change_config(num_hidden_layers=2), "cannot be read"),
    "index is not JSON": (lambda d: (d / "model.safetensors.index.json").write_text("["), "as an index of weights"),
    "index without a map": (lambda d: (d / "model.safetensors.index.json").write_text("{}"), "as an index of weights"),
    "negative size": (change_config(hidden_size=-8), "no model can be built"),
    "generation is not JSON": (lambda d: (d / "generation_config.json").write_text("{"), "cannot be read"),
    "hot": (change("generation_config.json", temperature="hot"), "config.json"),
    "hotter": (change("generation_config.json", temperature=9.0), "expected a number from 0.0 to 2.0, got 9.0"),
    "min_p over 1": (change("generation_config.json", min_p=1.5), "min_p: expected a number from 0.0 to 1.0, got 1.5"),
    "no penalty": (change("generation_config.json", repetition_penalty=0.0), "repetition_penalty: expected a number"),
    "more tokens than logits": (change_config(vocab_size=2525), "tokenizer.json: token 2525 is beyond"),
    "broken template": (change("tokenizer_config.json", chat_template="{% if %}"), "template cannot be rendered"),
    "scaled rotary": (change_config(rope_scaling={"rope_type": "yarn", "factor": 4.0}), "only default is supported"),
}


def _start(directory: Path) -> None:
    require_usable(str(directory))
    load_parts(directory, settings(), lambda share: None)


@pytest.mark.parametrize(("breakage", "said"), BREAKAGES.values(), ids=BREAKAGES.keys())
def test_broken_checkpoint_is_said_in_one_line(breakage: Breakage, said: str, whole: Path, tmp_path: Path) -> None:
    directory = tmp_path / "broken"
    shutil.copytree(whole, directory)
    _start(directory)
    breakage(directory)
    with pytest.raises(StartupError) as raised:
        _start(directory)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_broken_checkpoint_ends_the_start_with_that_line_alone(whole: Path, tmp_path: Path) -> None:
    directory = tmp_path / "broken"
    shutil.copytree(whole, directory)
    truncate(directory)
    program = Program(sys.executable, "-m", "inference_server", "--port", "0", "--model", str(directory))
    assert program.wait() == 2, program.output
    [line] = [line for line in program.output.splitlines() if " INFO " not in line]
    assert line.startswith(f"inference_server: {directory}/model-00002-of-00003.safetensors is truncated")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_says_what_was_found() -> None:
    with pytest.raises(StartupError, match=r"no usable GPU; found (driver|no NVIDIA driver).* torch 2\.") as raised:
        choose_device("cuda")
    assert "\n" not in str(raised.value)


def test_too_little_memory_is_said_with_the_arithmetic() -> None:
    free = psutil.virtual_memory().available
    with pytest.raises(StartupError) as raised:
        require_memory(free, torch.bfloat16, torch.device("cpu"))
    assert "B parameters x 2 bytes = " in str(raised.value)
    assert "GB free on cpu" in str(raised.value)
    require_memory(1000, torch.float32, torch.device("cpu"))


def test_memory_is_checked_before_a_weight_is_read(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference_server.engine.device.free_bytes", lambda device: 1000)
    shares: list[float] = []
    with pytest.raises(StartupError, match="too little memory"):
        load_model(whole, read_config(whole), "cpu", "auto", shares.append)
    assert shares == []


def test_page_cache_of_a_container_counts_as_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "memory.max": "1000000000",
        "memory.high": "max",
        "memory.current": "990000000",
        "memory.stat": "anon 10000000\nactive_file 500000000\ninactive_file 400000000",
    }
    system = v2_system(tmp_path, "/", files)
    monkeypatch.setattr(control_groups, "free_memory", lambda: free_memory(system))
    require_memory(400_000_000, torch.bfloat16, torch.device("cpu"))
    with pytest.raises(StartupError, match="too little memory"):
        require_memory(500_000_000, torch.bfloat16, torch.device("cpu"))
