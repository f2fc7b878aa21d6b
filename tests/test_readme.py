"""The README's commands, run as they stand against the running service."""

import os
import re
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import click
import pytest

import clients.config
import http_bridge.config
import inference_server.config
from scripts.run import TRY_IT
from tests.conftest import Service
from tests.programs import ROOT

READMES = ["README.md", "README.zh-CN.md"]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(name: str, *languages: str) -> list[str]:
    text = (ROOT / name).read_text()
    return [code for language, code in BLOCK.findall(text) if language in languages]


def commands(name: str) -> list[str]:
    """Each command of the shell blocks, its continuation lines included."""
    lines = "".join(blocks(name, "sh")).replace("\\\n", "")
    return [line for line in lines.splitlines() if line.strip() and not line.startswith("#")]


def at(service: Service, code: str) -> str:
    return code.replace("localhost:50051", service.grpc_address).replace("http://localhost:8000", service.url)


def run(command: list[str]) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, env=os.environ | {"PATH": path}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", READMES)
def test_every_command_works(name: str, service: Service) -> None:
    asked = commands(name)
    assert any(command.startswith("curl") for command in asked)
    assert any(command.startswith("grpcurl") for command in asked)
    for command in asked:
        output = run(["bash", "-c", at(service, command)])
        assert "error" not in output.lower(), (command, output)
        if "CreateChatCompletion" in command or "completions" in command:
            assert "demo" in output, (command, output)
        if "Health" in command:
            assert "SERVING" in output


@pytest.mark.parametrize("name", READMES)
def test_every_python_example_prints_an_answer(name: str, service: Service) -> None:
    examples = blocks(name, "python")
    assert len(examples) >= 2
    for example in examples:
        assert len(run([sys.executable, "-c", at(service, example)])) > 20


@pytest.mark.parametrize("name", READMES)
def test_the_answer_that_is_shown_is_the_one_that_comes(name: str, service: Service) -> None:
    curl = next(command for command in commands(name) if command.startswith("curl"))
    [shown] = blocks(name, "json")
    response = re.compile(r'"response": ?"([^"]*)"')
    found, said = response.search(run(["bash", "-c", at(service, curl)])), response.search(shown)
    assert found
    assert said
    assert found.group(1) == said.group(1)


def table_rows(name: str) -> list[list[str]]:
    lines = [line for line in (ROOT / name).read_text().splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("name", READMES)
@pytest.mark.parametrize(
    "command",
    [module.command(print) for module in (inference_server.config, http_bridge.config, clients.config)],
    ids=lambda command: command.name,
)
def test_settings_table_is_what_the_program_takes(name: str, command: click.Command) -> None:
    rows = table_rows(name)
    start = next(i for i, row in enumerate(rows) if row[0] == f"`{command.name}`") + 1
    documented = dict(takewhile(lambda row: row[0].startswith("`--"), ((row[0], row[1]) for row in rows[start:])))
    options = [option for option in command.params if isinstance(option, click.Option) and option.name != "help"]
    assert [f"`{option.opts[0]}`" for option in options] == list(documented)
    for option in options:
        is_shown = isinstance(option.default, str | int) and not isinstance(option.default, bool)
        if is_shown and not isinstance(option.show_default, str):
            assert documented[f"`{option.opts[0]}`"] == f"`{option.default}`"


def test_both_readmes_are_in_step() -> None:
    english, chinese = ((ROOT / name).read_text() for name in READMES)
    for pattern in (
        r"(?m)^(#+) ",
        r"```(\w+)\n",
        r"(?m)^\$ (.+)$",
        r"`(--[a-z-]+)`",
        r"`(make [^`]+)`",
        r"!\[.*\]\((.*)\)",
    ):
        assert re.findall(pattern, english) == re.findall(pattern, chinese), pattern
    assert [row[0] for row in table_rows(READMES[0]) if "`" in row[0]] == [
        row[0].replace("、", ", ") for row in table_rows(READMES[1]) if "`" in row[0]
    ]
    assert [code for language, code in BLOCK.findall(english) if language == "console"] == [
        code for language, code in BLOCK.findall(chinese) if language == "console"
    ]
    trees = [re.findall(r"(?m)^ *([a-z_]+/) ", blocks(name, "text")[0]) for name in READMES]
    assert trees[0] == trees[1]
    for place in trees[0]:
        assert (ROOT / place).is_dir() or (ROOT / "inference_server" / place).is_dir()


def test_every_make_target_that_is_named_is_there() -> None:
    named = re.findall(r"(?:`|\$ )make ([a-z][a-z-]*)", (ROOT / "README.md").read_text())
    there = re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text())
    assert {"run", "test", "download", "chat"} <= set(named) <= set(there)


def test_the_transcript_of_make_run_is_what_is_printed() -> None:
    [transcript] = [
        code for language, code in BLOCK.findall((ROOT / "README.md").read_text()) if "$ make run\n" in code
    ][:1]
    printed = TRY_IT.format(http_port=8000, grpc_port=50051).strip("\n")
    assert printed in transcript
