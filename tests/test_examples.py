"""The examples of clients/, run as they stand, and the stubs as a package of their own."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Service
from tests.programs import ROOT


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_is_a_test_for_every_example() -> None:
    names = {path.stem for path in (ROOT / "clients/examples").iterdir() if path.suffix in (".py", ".sh")}
    assert names == {"__init__", "grpc_stubs", "grpc_reflection", "openai_sdk", "curl"}


def test_grpc_stubs_example_streams_an_answer(service: Service) -> None:
    output = run(sys.executable, "-m", "clients.examples.grpc_stubs", service.grpc_address)
    assert "演示模型" in output
    assert "tokens" in output.splitlines()[-1]


def test_grpc_reflection_example_prints_an_answer(service: Service) -> None:
    output = run(sys.executable, "-m", "clients.examples.grpc_reflection", service.grpc_address)
    assert '"finishReason": "FINISH_REASON_STOP"' in output


def test_openai_sdk_example_streams_an_answer(service: Service) -> None:
    assert "Hello" in run(sys.executable, "-m", "clients.examples.openai_sdk", service.url)


def test_curl_example_gets_an_answer_and_a_stream(service: Service) -> None:
    output = run("clients/examples/curl.sh", service.url)
    assert '"response":"' in output.splitlines()[0]
    assert output.rstrip().endswith("data: [DONE]")


@pytest.fixture
def installed_stubs(tmp_path: Path) -> Path:
    source, target = tmp_path / "source", tmp_path / "installed"
    shutil.copytree(ROOT / "protos", source, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(target)]
    subprocess.run([*pip, str(source)], check=True, capture_output=True, timeout=120)
    return target


def test_stubs_install_on_their_own_and_work_without_torch(installed_stubs: Path, service: Service) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(installed_stubs)!r})
import grpc, protos
from protos.chat.v1 import chat_pb2, chat_pb2_grpc
assert protos.__file__.startswith({str(installed_stubs)!r})
assert not {{"torch", "transformers"}} & set(sys.modules)
with grpc.insecure_channel({service.grpc_address!r}) as channel:
    hello = chat_pb2.Message(role=chat_pb2.ROLE_USER, content="Hello")
    print(chat_pb2_grpc.ChatServiceStub(channel).CreateChatCompletion(
        chat_pb2.ChatCompletionRequest(messages=[hello], temperature=0), timeout=60).choices[0].message.content)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=installed_stubs.parent, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert {"chat.proto", "chat_pb2.pyi", "chat_pb2_grpc.pyi"} <= {
        path.name for path in (installed_stubs / "protos/chat/v1").iterdir()
    }
