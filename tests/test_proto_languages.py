"""The proto makes code in other languages with their own generators; the READMEs' command for Go works."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import ROOT

PROTO = "protos/chat/v1/chat.proto"


def generate(out: Path, *arguments: str, protoc: tuple[str, ...] = (sys.executable, "-m", "grpc_tools.protoc")) -> str:
    """All that was written, in one text."""
    subprocess.run([*protoc, "-I.", *arguments, PROTO], cwd=ROOT, check=True, capture_output=True, text=True)
    return "\n".join(path.read_text() for path in sorted(out.rglob("*")) if path.is_file())


def has_go_generators() -> bool:
    """Those before 1.26 know no version and no optional fields."""
    if not (shutil.which("protoc-gen-go") and shutil.which("protoc-gen-go-grpc")):
        return False
    asked = ["protoc-gen-go", "--version"]
    told = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30).stdout
    return told.startswith("protoc-gen-go v")


@pytest.mark.skipif(
    not has_go_generators(),
    reason="no generators for Go on this machine: apt-get install protoc-gen-go protoc-gen-go-grpc",
)
@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_readmes_command_makes_go_code(readme: str, tmp_path: Path) -> None:
    found = re.search(r"^protoc (--go_out=.*) protos/chat/v1/chat\.proto$", (ROOT / readme).read_text(), re.MULTILINE)
    assert found
    made = generate(tmp_path, *(argument.replace("=.", f"={tmp_path}") for argument in found[1].split()))
    assert made.count("package chatv1") == 2
    assert "type ChatServiceClient interface" in made
    assert (tmp_path / "protos/chat/v1/chat.pb.go").is_file()


@pytest.mark.skipif(not shutil.which("grpc_java_plugin"), reason="no generator for gRPC in Java on this machine")
def test_java_stubs_are_made(tmp_path: Path) -> None:
    plugin = f"--plugin=protoc-gen-grpc-java={shutil.which('grpc_java_plugin')}"
    made = generate(tmp_path, plugin, f"--grpc-java_out={tmp_path}")
    assert "package qwen3chat.protos.chat.v1;" in made
    assert "class ChatServiceGrpc" in made


@pytest.mark.skipif(not shutil.which("protoc"), reason="no protoc with Java and C# on this machine")
def test_java_and_csharp_messages_are_made(tmp_path: Path) -> None:
    made = generate(tmp_path, f"--java_out={tmp_path}", f"--csharp_out={tmp_path}", protoc=("protoc",))
    assert "public final class ChatCompletionRequest" in made
    assert "namespace Qwen3Chat.V1" in made
