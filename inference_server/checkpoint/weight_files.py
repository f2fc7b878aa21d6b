"""Which files hold a checkpoint's weights, and what their headers say. Reads no weight; needs no torch.

Source of the choice: transformers' from_pretrained. Of the format: https://github.com/huggingface/safetensors#format
"""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from inference_server.errors import StartupError

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
_MOST_HEADER_BYTES = 100_000_000  # as safetensors itself has it
_LFS_POINTER = b"version https://git-lfs"
DTYPES = ("BF16", "F16", "F32", "F64")  # what can be converted; others are quantised


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """One tensor of one file. dtype: as safetensors calls it."""

    path: Path
    dtype: str
    shape: tuple[int, ...]


def stored_weights(checkpoint_dir: Path) -> dict[str, list[StoredWeight]]:
    """Where each weight lies, by its name in the files; in several files if they repeat it. Raises StartupError."""
    found: dict[str, list[StoredWeight]] = {}
    for path in weight_paths(checkpoint_dir):
        for name, weight in _header(path).items():
            found.setdefault(name, []).append(weight)
    return found


def weight_paths(checkpoint_dir: Path) -> list[Path]:
    """The whole file, else the index's shards, else shards that are complete by their names. Raises StartupError."""
    if os.path.lexists(checkpoint_dir / WHOLE):
        names = [WHOLE]
    elif os.path.lexists(checkpoint_dir / INDEX):
        names = _indexed(checkpoint_dir / INDEX)
    else:
        names = _numbered(checkpoint_dir, os.listdir(checkpoint_dir))
    paths = [checkpoint_dir / name for name in names]
    for path in paths:
        if not os.path.lexists(path):
            raise StartupError(f"{path} is missing: the download is not complete; run it again")
        require_file(path)
    return paths


def require_file(path: Path) -> None:
    """Raises StartupError for what has the file's name but not its content. A pipe is taken on trust."""
    if path.is_symlink() and not path.exists():
        raise StartupError(
            f"{path} is a link to {os.readlink(path)}, which is not there: copy the checkpoint with `cp -rL`, "
            "or mount the directory that its links lead to as well"
        )
    if path.is_dir():
        raise StartupError(f"{path} is a directory; a file belongs there")
    if path.is_file():
        with path.open("rb") as file:
            begin = file.read(len(_LFS_POINTER))
        if begin == _LFS_POINTER:
            raise StartupError(f"{path} is a git-LFS pointer, not the file itself: run `git lfs pull` in its directory")
        if not begin:
            raise StartupError(f"{path} is empty: the download is not complete; run it again")


def _indexed(index: Path) -> list[str]:
    require_file(index)
    try:
        return sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise StartupError(f"{index} cannot be read as an index of weights") from None


def _numbered(checkpoint_dir: Path, names: Iterable[str]) -> list[str]:
    """Shards whose index is missing. Raises StartupError where their names do not show a complete set."""
    shards = sorted(filter(None, map(_SHARD.fullmatch, names)), key=lambda shard: shard.group())
    counts = {int(shard[2]) for shard in shards}
    if not counts:
        raise StartupError(f"{checkpoint_dir}: neither {WHOLE} nor {INDEX} is there; {_instead(checkpoint_dir)}")
    if len(counts) > 1:
        raise StartupError(f"{checkpoint_dir}: shards of several checkpoints and no {INDEX} that says which to read")
    count = counts.pop()
    return [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]


def _instead(checkpoint_dir: Path) -> str:
    """What else holds weights there, and what to do about it."""
    names = sorted(os.listdir(checkpoint_dir))
    if any(re.fullmatch(r"pytorch_model.*\.bin(\.index\.json)?", name) for name in names):
        return (
            "pytorch_model.bin is not read, because loading a pickle can run code: convert it with transformers, "
            "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(DIR)"
        )
    others = [name for name in names if name.endswith((".safetensors", ".pth", ".pt", ".bin", ".h5", ".msgpack"))]
    if others:
        return f"{others[0]} is not a name that transformers gives to weights"
    return "the download is not complete; run it again"


def _header(path: Path) -> dict[str, StoredWeight]:
    """What a file holds. Raises StartupError where it is not a whole safetensors file."""
    with path.open("rb") as file:
        begin, size = file.read(8), os.fstat(file.fileno()).st_size
        length = int.from_bytes(begin, "little")
        if length > _MOST_HEADER_BYTES:
            raise StartupError(f"{path} is not a safetensors file")
        try:
            entries = json.loads(file.read(length))
            entries.pop("__metadata__", None)
            weights = {name: _stored(path, entry) for name, entry in entries.items()}
            end = 8 + length + max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            if size < 8 + length:
                raise _truncated(path, size, 8 + length) from None
            raise StartupError(f"{path} is not a safetensors file: its header cannot be read") from None
    if size < end:
        raise _truncated(path, size, end)
    if size > end:
        raise StartupError(f"{path} has {size} bytes, {end} by its header: it is damaged; download it again")
    return weights


def _stored(path: Path, entry: dict[str, object]) -> StoredWeight:
    dtype, shape = entry["dtype"], entry["shape"]
    if not isinstance(dtype, str) or not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise ValueError
    return StoredWeight(path, dtype, tuple(shape))


def _truncated(path: Path, size: int, expected: int) -> StartupError:
    least = f"at least {expected}" if size < 8 else str(expected)
    return StartupError(f"{path} is truncated: {size} of {least} bytes; the download is not complete, run it again")
