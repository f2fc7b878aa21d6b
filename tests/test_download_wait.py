"""The wait of a pod for the checkpoint that another one downloads."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from inference_server.demo_model import CHECKPOINT_DIR
from inference_server.download.wait import missing_files
from tests.programs import Program

SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
INDEX = json.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[0], "c": SHARDS[1]}})
FILES = {
    "config.json": "{}",
    "tokenizer.json": "{}",
    "model.safetensors.index.json": INDEX,
    **dict.fromkeys(SHARDS, ""),
}


def write(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).write_text(FILES[name])


def start(directory: Path, *flags: str) -> Program:
    return Program(sys.executable, "-m", "inference_server.download.wait", str(directory), *flags)


def test_the_wait_ends_when_the_last_shard_has_its_name(tmp_path: Path) -> None:
    program = start(tmp_path)
    program.wait_for(r"waiting for config\.json, tokenizer\.json, model\.safetensors\n")
    write(tmp_path, *list(FILES)[:-1])
    (tmp_path / f"{SHARDS[1]}.part").touch()
    program.wait_for(rf"waiting for {SHARDS[1]}\n")
    (tmp_path / f"{SHARDS[1]}.part").rename(tmp_path / SHARDS[1])
    assert program.wait() == 0
    assert program.lines[-1].endswith("the checkpoint is there\n")


def test_a_checkpoint_that_is_there_is_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path, *FILES)
    assert start(tmp_path, "--timeout-s", "0").wait() == 0


def test_the_wait_gives_up_with_one_line(tmp_path: Path) -> None:
    write(tmp_path, *list(FILES)[:-1])
    program = start(tmp_path, "--timeout-s", "1")
    assert program.wait() == 2
    assert program.lines[-1] == (f"inference_server.download.wait: {tmp_path}: {SHARDS[1]} did not come within 1 s\n")


def test_a_signal_ends_the_wait(tmp_path: Path) -> None:
    program = start(tmp_path)
    program.wait_for("waiting for")
    program.signal()
    assert program.wait() == 130
    assert "Traceback" not in program.output


@pytest.mark.parametrize("index", ["no", "[]", "{}", '{"weight_map": 1}'])
def test_an_index_that_is_none_ends_the_wait(tmp_path: Path, index: str) -> None:
    write(tmp_path, *FILES)
    (tmp_path / "model.safetensors.index.json").write_text(index)
    program = start(tmp_path)
    assert program.wait() == 2
    assert "not an index of weights; run the download again" in program.lines[-1]


def test_an_older_tokenizer_and_a_single_file_of_weights_are_whole_too(tmp_path: Path) -> None:
    for name in ("config.json", "vocab.json", "model.safetensors"):
        (tmp_path / name).touch()
    assert missing_files(tmp_path) == ["tokenizer.json"]
    (tmp_path / "merges.txt").touch()
    assert missing_files(tmp_path) == []


def test_what_a_server_can_load_is_whole(tmp_path: Path) -> None:
    directory = shutil.copytree(CHECKPOINT_DIR, tmp_path / "demo")
    assert missing_files(directory) == []
    for name in ("config.json", "tokenizer.json"):
        (directory / name).rename(directory / f"{name}.part")
        assert missing_files(directory) == [name]
        (directory / f"{name}.part").rename(directory / name)
