"""A model that cannot be served is refused for what it is, in one line, before anything slow is imported."""

import errno
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from inference_server.checkpoint.advice import of_absent_checkpoint, of_missing
from inference_server.checkpoint.check import require_usable
from inference_server.errors import StartupError
from tests.checkpoints import Shape, write_checkpoint
from tests.programs import ROOT, Program
from tests.test_failures import change, change_config, remove

Change = Callable[[Path], object]
LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0ab1\nsize 1503300328\n"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("whole")
    write_checkpoint(directory, Shape())
    return directory


def refusal(model: Path | str) -> str:
    with pytest.raises(StartupError) as raised:
        require_usable(str(model))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def write(name: str, content: str | bytes) -> Change:
    def written(directory: Path) -> None:
        (directory / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return written


def rename(name: str, other: str) -> Change:
    return lambda directory: (directory / name).rename(directory / other)


def both(first: Change, second: Change) -> Change:
    return lambda directory: (first(directory), second(directory))


def only(*names: str) -> Change:
    """What is left of the directory."""

    def keep(directory: Path) -> None:
        for path in directory.iterdir():
            if path.name not in names:
                path.unlink()

    return keep


def link_into_nowhere(directory: Path) -> None:
    """As the snapshot of a hub's cache that was mounted without its blobs."""
    (directory / WEIGHTS).unlink()
    (directory / WEIGHTS).symlink_to("../../blobs/0ab1")


def move_below(place: str) -> Change:
    def moved(directory: Path) -> None:
        names = [path.name for path in directory.iterdir()]
        (directory / place).mkdir(parents=True)
        for name in names:
            (directory / name).rename(directory / place / name)

    return moved


def cut(directory: Path) -> None:
    weights = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(weights[:-1])


def cut_in_the_header(directory: Path) -> None:
    weights = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(weights[:100])


def lengthen(directory: Path) -> None:
    with (directory / WEIGHTS).open("ab") as file:
        file.write(b"\0")


def store_as(dtype: torch.dtype) -> Change:
    def stored(directory: Path) -> None:
        weights = load_file(directory / WEIGHTS)
        weights["model.layers.0.mlp.down_proj.weight"] = weights["model.layers.0.mlp.down_proj.weight"].to(dtype)
        save_file(weights, directory / WEIGHTS)

    return stored


ADAPTER = write("adapter_config.json", json.dumps({"peft_type": "LORA", "base_model_name_or_path": "Qwen/Qwen3-0.6B"}))
ADAPTER_SAID = r"an adapter \(LORA\) of Qwen/Qwen3-0.6B, not a whole model; merge it"
TRUNCATED = rf"{WEIGHTS} is truncated: \d+ of \d+ bytes"

REFUSED: dict[str, tuple[Change, str]] = {
    "empty": (only(), "the directory is empty; `make download`"),
    "adapter": (both(only(), ADAPTER), ADAPTER_SAID),
    "adapter beside its tokenizer": (both(only("tokenizer.json", "tokenizer_config.json"), ADAPTER), ADAPTER_SAID),
    "adapter with its weights": (
        both(both(only(), ADAPTER), write("adapter_model.safetensors", b"\2\0\0\0\0\0\0\0{}")), ADAPTER_SAID
    ),
    "adapter beside a configuration": (both(only("config.json", "tokenizer.json"), ADAPTER), ADAPTER_SAID),
    "GGUF alone": (both(only(), write("Qwen3-0.6B-Q8_0.gguf", b"GGUF")), "Q8_0.gguf: a GGUF file.*not supported"),
    "GGUF with a configuration": (both(only("config.json"), write("m.gguf", b"GGUF")), "m.gguf: a GGUF file"),
    "pickled weights": (rename(WEIGHTS, "pytorch_model.bin"), "pytorch_model.bin is not read.*save_pretrained"),
    "pickled shards": (
        both(remove(WEIGHTS), write("pytorch_model-00001-of-00002.bin", b"PK")), "pytorch_model.bin is not read"
    ),
    "weights of another name": (rename(WEIGHTS, "qwen3.safetensors"), "qwen3.safetensors is not a name"),
    "no weights": (remove(WEIGHTS), "neither model.safetensors nor model.safetensors.index.json is there"),
    "no configuration": (remove("config.json"), "no config.json there; --model wants a checkpoint's directory"),
    "one directory too high": (move_below("Qwen3-0.6B"), "but .*/Qwen3-0.6B has one: --model .*/Qwen3-0.6B"),
    "the hub's cache": (move_below("snapshots/c1899de2"), "--model .*/snapshots/c1899de2"),
    "configuration is cut off": (write("config.json", '{"model_type": "qw'), "config.json cannot be read as JSON"),
    "configuration is a list": (write("config.json", "[]"), "expected a JSON object, got list"),
    "configuration is empty": (write("config.json", ""), "config.json is empty: the download"),
    "configuration is nested": (write("config.json", "[" * 100_000), "config.json cannot be read as JSON"),
    "configuration is no text": (write("config.json", b"\xff\xfe"), "config.json cannot be read as JSON"),
    "no model type": (write("config.json", "{}"), "config.json has no model_type"),
    "mixture of experts": (change_config(model_type="qwen3_moe"), "a qwen3_moe checkpoint; this server runs dense"),
    "a classifier": (
        change_config(architectures=["Qwen3ForSequenceClassification"]),
        "a checkpoint for Qwen3ForSequenceClassification",
    ),
    "no tokenizer": (remove("tokenizer.json"), "no tokenizer.json there, nor vocab.json"),
    "half a tokenizer": (rename("tokenizer.json", "vocab.json"), "no tokenizer.json there, nor vocab.json"),
    "empty tokenizer": (write("tokenizer.json", ""), "tokenizer.json is empty"),
    "weights are a pointer": (write(WEIGHTS, LFS_POINTER), f"{WEIGHTS} is a git-LFS pointer.*git lfs pull"),
    "tokenizer is a pointer": (write("tokenizer.json", LFS_POINTER), "tokenizer.json is a git-LFS pointer"),
    "configuration is a pointer": (write("config.json", LFS_POINTER), "config.json is a git-LFS pointer"),
    "weights are a link": (link_into_nowhere, r"is a link to \.\./\.\./blobs/0ab1, which is not there: .*cp -rL"),
    "weights are a directory": (
        both(remove(WEIGHTS), lambda directory: (directory / WEIGHTS).mkdir()), f"{WEIGHTS} is a directory"
    ),
    "weights are cut off": (cut, TRUNCATED),
    "weights are cut off early": (cut_in_the_header, TRUNCATED),
    "weights of four bytes": (write(WEIGHTS, b"\0\0\0\1"), f"{WEIGHTS} is (truncated|not a safetensors)"),
    "weights are longer": (lengthen, r"has \d+ bytes, \d+ by its header"),
    "weights are a page": (write(WEIGHTS, "<!DOCTYPE html><html>Not found</html>"), "is not a safetensors file"),
    "header is no object": (write(WEIGHTS, b"\2\0\0\0\0\0\0\0[]"), "is not a safetensors file"),
    "weights of 8 bits": (store_as(torch.float8_e4m3fn), "quantised: .*down_proj.weight is of type F8_E4M3"),
    "whole numbers": (store_as(torch.int8), "quantised: .*down_proj.weight is of type I8"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_checkpoint_is_refused_for_what_it_is(kind: str, whole: Path, tmp_path: Path) -> None:
    directory, (change_it, said) = tmp_path / "model", REFUSED[kind]
    shutil.copytree(whole, directory)
    require_usable(str(directory))
    change_it(directory)
    assert re.search(said, refusal(directory)), refusal(directory)


@pytest.mark.parametrize(
    "change_it",
    [
        change_config(quantization_config=None),
        change_config(quantization_config={}),
        write("hf_quant_config.json", '{"quantization": {"quant_algo": null, "kv_cache_quant_algo": "FP8"}}'),
        change_config(architectures=["Qwen3Model"]),
        change_config(architectures=None),
        write("notes.gguf", "GGUF"),
        ADAPTER,
        both(remove("tokenizer.json"), both(write("vocab.json", "{}"), write("merges.txt", "#version: 0.2"))),
        change("config.json", transformers_weights=WEIGHTS),
    ],
)
def test_what_a_whole_checkpoint_has_beside_it_is_no_reason_to_refuse_it(
    change_it: Change, whole: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "model"
    shutil.copytree(whole, directory)
    change_it(directory)
    require_usable(str(directory))


def test_files_are_named_for_what_they_are(tmp_path: Path) -> None:
    for name, said in (("m.gguf", "a GGUF file"), (WEIGHTS, f"a file; --model wants .* {tmp_path}$")):
        (tmp_path / name).write_bytes(b"GGUF")
        assert re.search(said, refusal(tmp_path / name))
    assert "a GGUF file" in refusal("Qwen3-0.6B-Q8_0.gguf")


def test_unreadable_checkpoint_says_which_user_reads(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(directory: Path) -> None:  # root, who may run the tests, reads everything
        raise PermissionError(errno.EACCES, "Permission denied", str(directory / WEIGHTS))

    monkeypatch.setattr("inference_server.checkpoint.check.stored_weights", unreadable)
    said = refusal(whole)
    assert said.startswith(f"{whole / WEIGHTS}: Permission denied; the server runs as user {os.getuid()}")


@pytest.mark.parametrize(
    "model", ["Qwen/Qwen3-0.6B", "https://huggingface.co/Qwen/Qwen3-0.6B", "hf://Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B/"]
)
def test_hubs_repository_is_named_with_the_command_that_gets_it(model: str, tmp_path: Path) -> None:
    assert refusal(model).startswith(f"--model {model}: the repository Qwen/Qwen3-0.6B on a model hub, not a directory")
    in_checkout = of_missing(model, ROOT)
    assert "`make download MODEL=Qwen/Qwen3-0.6B`" in in_checkout
    assert "docker" not in in_checkout
    in_image = of_missing(model, tmp_path)
    assert mount_of(in_image) == ("$PWD/models/Qwen3-0.6B", "/app/Qwen3-0.6B", "ro")
    assert "-e INFERENCE_MODEL=/app/Qwen3-0.6B" in in_image


@pytest.mark.parametrize(
    "model", ["/nowhere/at/all", "models/Qwen3-4B-Instruct-2507", "nowhere", "./a/b", "tests/none"]
)
def test_missing_directory_is_named_with_the_command_that_fits_where_it_runs(model: str, tmp_path: Path) -> None:
    assert refusal(model).startswith(f"--model {model}: no such directory; `make download`")
    host, place, access = mount_of(of_absent_checkpoint(model, tmp_path))
    assert place.startswith("/")
    assert (host, access) == (f"$PWD/models/{Path(model).name}", "ro")


def test_adapter_beside_whole_weights_is_said_not_to_be_applied(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "model"
    shutil.copytree(whole, directory)
    ADAPTER(directory)
    require_usable(str(directory))
    assert "the adapter beside the weights is not applied" in caplog.text


def test_other_sizes_are_downloaded_by_name() -> None:
    assert "`make download MODEL=Qwen/Qwen3-8B`" in of_missing("models/Qwen3-8B", ROOT)
    assert "`make download` fetches Qwen3-4B-Instruct-2507, then" in of_missing("models/Qwen3-4B-Instruct-2507", ROOT)


def test_an_image_is_told_from_a_checkout_by_the_makefile() -> None:
    copied = [line for line in (ROOT / "Dockerfile.inference").read_text().splitlines() if line.startswith("COPY")]
    assert copied
    assert not any("Makefile" in line or line.split()[1] == "." for line in copied)


def mount_of(advice: str) -> tuple[str, ...]:
    """Host's directory, place and access of the volume that the advice's command mounts."""
    words = shlex.split(advice[advice.index("docker run") :].replace("(", "").replace("'", ""))
    return tuple(words[words.index("-v") + 1].split(":"))


@pytest.mark.parametrize("kind", ["missing", "empty", "adapter", "weights are cut off"])
def test_refusal_is_one_line_with_code_2_and_imports_nothing_slow(kind: str, whole: Path, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    if kind != "missing":
        shutil.copytree(whole, directory)
        REFUSED[kind][0](directory)
    program = Program(sys.executable, "-X", "importtime", "-m", "inference_server", "--model", str(directory))
    assert program.wait() == 2
    imported = {line.split("|")[2].strip() for line in program.output.splitlines() if line.startswith("import time:")}
    assert "inference_server.checkpoint.check" in imported
    assert not imported & {"torch", "transformers", "grpc", "numpy", "rich", "safetensors", "prometheus_client"}
    [line] = [line for line in program.output.splitlines() if not line.startswith("import time:")]
    assert line == f"inference_server: {refusal(directory)}"
