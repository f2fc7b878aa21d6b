"""Whether a checkpoint is quantised, and by which method. Every tool writes that into a place of its own."""

from collections.abc import Iterator, Mapping
from typing import Any

# By its name in lower case, as its makers write it.
_NAMES = {
    "fp8": "FP8", "awq": "AWQ", "gptq": "GPTQ", "aqlm": "AQLM", "hqq": "HQQ", "mxfp4": "MXFP4", "nvfp4": "NVFP4",
    "bitsandbytes_4bit": "bitsandbytes", "bitsandbytes_8bit": "bitsandbytes",
}  # fmt: skip
_METHOD_KEYS = ("quant_method", "quantization_method", "quant_algo", "quant_type", "method")
# What betrays a method whose name is not written down, the surest first.
_TELLTALES = (
    ("config_groups", "compressed-tensors"), ("load_in_4bit", "bitsandbytes"), ("load_in_8bit", "bitsandbytes"),
    ("zero_point", "AWQ"), ("w_bit", "AWQ"), ("desc_act", "GPTQ"), ("weight_block_size", "FP8"),
)  # fmt: skip
# Files of tools that leave config.json as it was.
SIDE_FILES = {"hf_quant_config.json": "ModelOpt", "quantize_config.json": "GPTQ", "quant_config.json": "AWQ"}


def quantization_method(config: Mapping[str, Any], side_files: Mapping[str, Any]) -> str | None:
    """The method's name; None where weights are plain numbers.

    config: of config.json. side_files: what those of `SIDE_FILES` that exist hold, by name.
    """
    for key, default in (
        ("quantization_config", "an unnamed method"),
        ("compression_config", "compressed-tensors"),
        ("quantization", "MLX"),
    ):
        if config.get(key) and not _keeps_weights(config[key]):
            return _method(config[key], default)
    for name, default in SIDE_FILES.items():
        if side_files.get(name) and not _keeps_weights(side_files[name]):
            return _method(side_files[name], default)
    return None


def _method(said: Any, default: str) -> str:
    if isinstance(said, str):
        return _NAMES.get(said.lower(), said)
    parts = list(_mappings(said))
    for name in (part.get(key) for key in _METHOD_KEYS for part in parts):
        if isinstance(name, str) and name:
            return _NAMES.get(name.lower(), name)
    return next((name for key, name in _TELLTALES if any(key in part for part in parts)), default)


def _mappings(said: Any) -> Iterator[Mapping[str, Any]]:
    """The object and those in it, one floor down."""
    if isinstance(said, Mapping):
        yield said
        yield from (inner for inner in said.values() if isinstance(inner, Mapping))


def _keeps_weights(said: Any) -> bool:
    """Whether only the KV cache is quantised: ModelOpt then says null for the weights."""
    return any("quant_algo" in part and part["quant_algo"] is None for part in _mappings(said))
