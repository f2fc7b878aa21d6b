"""Whether a directory is a checkpoint that this server can load. Called before anything slow is imported."""

import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

from inference_server.checkpoint.advice import of_absent_checkpoint, of_missing
from inference_server.checkpoint.quantization import SIDE_FILES, quantization_method
from inference_server.checkpoint.weight_files import DTYPES, require_file, stored_weights
from inference_server.errors import StartupError

_log = logging.getLogger(__name__)
ARCHITECTURES = ("Qwen3ForCausalLM", "Qwen3Model")
_HERE = "this server runs dense Qwen3 models"
_QUANTISED_TYPES = ("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "I32", "U32")  # safetensors' names
_UNQUANTISED = "only bfloat16, float16 and float32 weights are supported; serve the model's unquantised checkpoint"


def require_usable(model: str) -> None:
    """Raises StartupError, one line that says what to do, unless `model` is demo or a checkpoint by all its headers."""
    if model == "demo":
        return
    try:
        _require_directory(model)
        _require_checkpoint(Path(model))
    except OSError as error:
        hint = ""
        if error.errno in (errno.EACCES, errno.EPERM):
            hint = f"; the server runs as user {os.getuid()}: `chmod -R a+rX` on the checkpoint lets it read"
        raise StartupError(f"{error.filename or model}: {error.strerror}{hint}") from error


def _require_directory(model: str) -> None:
    path = Path(model)
    if path.is_dir():
        return
    if path.suffix == ".gguf":
        raise StartupError(f"--model {model}: {_gguf()}")
    if path.exists():
        raise StartupError(f"--model {model}: a file; --model wants the checkpoint's directory, {path.parent}")
    raise StartupError(f"--model {model}: {of_missing(model)}")


def _require_checkpoint(directory: Path) -> None:
    names = sorted(os.listdir(directory))
    if not names:
        raise StartupError(f"--model {directory}: the directory is empty; {of_absent_checkpoint(str(directory))}")
    if not _holds_weights(names):
        _refuse_what_has_none(directory, names)
    if "config.json" not in names:
        raise StartupError(f"{directory}: no config.json there; {_elsewhere(directory, names)}")
    config = _object(directory / "config.json")
    _require_dense_qwen3(directory, config)
    side_files = {name: _object(directory / name) for name in SIDE_FILES if name in names}
    method = quantization_method(config, side_files)
    if method:
        raise StartupError(f"{directory}: the weights are quantised with {method}; {_UNQUANTISED}")
    _require_tokenizer(directory, names)
    if "adapter_config.json" in names:
        _log.warning("%s: the adapter beside the weights is not applied: only the weights are served", directory)
    for name, places in stored_weights(directory).items():
        if places[0].dtype in _QUANTISED_TYPES or (places[0].dtype not in DTYPES and name.endswith(".weight")):
            raise StartupError(
                f"{directory}: the weights are quantised: {name} is of type {places[0].dtype}; {_UNQUANTISED}"
            )


def _holds_weights(names: list[str]) -> bool:
    return any(name.startswith(("model", "pytorch_model")) and name.endswith((".safetensors", ".bin", ".json"))
               for name in names)  # fmt: skip


def _refuse_what_has_none(directory: Path, names: list[str]) -> None:
    """Raises StartupError for what is known to be no whole checkpoint."""
    if "adapter_config.json" in names:
        said = _object(directory / "adapter_config.json")
        base = said.get("base_model_name_or_path") or "its base model"
        raise StartupError(
            f"{directory}: an adapter ({said.get('peft_type') or 'PEFT'}) of {base}, not a whole model; merge it with "
            "PEFT's merge_and_unload(), save_pretrained() the result and serve that"
        )
    gguf = [name for name in names if name.endswith(".gguf")]
    if gguf:
        raise StartupError(f"{directory}/{gguf[0]}: {_gguf()}")


def _gguf() -> str:
    return (
        "a GGUF file, llama.cpp's format, which is not supported; serve the model's safetensors checkpoint, "
        "a directory with config.json"
    )


def _elsewhere(directory: Path, names: list[str]) -> str:
    """Where the checkpoint may be instead."""
    below = [*(directory / "snapshots").glob("*"), *(directory / name for name in names)]
    found = next((path for path in below if (path / "config.json").exists()), None)
    if found:
        return f"but {found} has one: --model {found}"
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"--model wants a checkpoint's directory or demo, and this one holds {shown}"


def _object(path: Path) -> dict[str, Any]:
    """A JSON file's content. Raises StartupError where that is no object."""
    require_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise StartupError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise StartupError(f"{path} cannot be read: expected a JSON object, got {type(content).__name__}")
    return content


def _require_dense_qwen3(directory: Path, config: dict[str, Any]) -> None:
    model_type, architectures = config.get("model_type"), config.get("architectures") or []
    if model_type is None:
        raise StartupError(f"{directory}/config.json has no model_type: not a configuration of transformers; {_HERE}")
    if model_type != "qwen3":
        raise StartupError(f"{directory}: a {model_type} checkpoint; {_HERE}")
    named = architectures if isinstance(architectures, list) else [architectures]
    if named and not set(map(str, named)) & set(ARCHITECTURES):
        raise StartupError(f"{directory}: a checkpoint for {named[0]}; {_HERE}, architecture {ARCHITECTURES[0]}")
    weights = config.get("transformers_weights")
    if weights not in (None, "model.safetensors", "model.safetensors.index.json"):
        raise StartupError(f"{directory}/config.json: transformers_weights {weights}: not supported")


def _require_tokenizer(directory: Path, names: list[str]) -> None:
    if "tokenizer.json" in names:
        require_file(directory / "tokenizer.json")
    elif "vocab.json" in names and "merges.txt" in names:
        for name in ("vocab.json", "merges.txt"):
            require_file(directory / name)
    else:
        raise StartupError(
            f"{directory}: no tokenizer.json there, nor vocab.json with merges.txt: copy the tokenizer's files of the "
            "model that this one was made from"
        )
