"""The README's commands, run as they stand against the running service."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Service
from tests.programs import ROOT

READMES = ["README.md"]
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
        if "ChatCompletion" in command or "completions" in command:
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
