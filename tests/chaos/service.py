"""The two programs as a user starts them, and what the system says of them."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from protos.chat.v1 import chat_pb2, chat_pb2_grpc
from tests.programs import Program, start_bridge, start_server

DEADLINE_S = 120.0  # generous: it only ends a call that hangs


@dataclass(frozen=True, slots=True)
class Service:
    """A server that is ready, and a bridge in front of it."""

    server: Program
    bridge: Program
    grpc_port: int
    http_port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def resident_mb(self) -> float:
        """Of both programs together."""
        return resident_mb(self.server) + resident_mb(self.bridge)


@contextlib.contextmanager
def running_service(server_flags: tuple[str, ...] = (), bridge_flags: tuple[str, ...] = ()) -> Iterator[Service]:
    """On the demo model. Fails if either program does not end well."""
    server, grpc_port = start_server(*server_flags)
    bridge = None
    try:
        bridge, http_port = start_bridge(f"127.0.0.1:{grpc_port}", *bridge_flags)
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            wait_ready(channel)
        yield Service(server, bridge, grpc_port, http_port)
    finally:
        codes = [program.stop() for program in (bridge, server) if program]
    assert codes == [0, 0], f"exit codes {codes}"


def wait_ready(channel: grpc.Channel) -> None:
    stub = chat_pb2_grpc.ChatServiceStub(channel)
    while stub.GetModel(chat_pb2.GetModelRequest(), wait_for_ready=True, timeout=DEADLINE_S).state != (
        chat_pb2.MODEL_STATE_READY
    ):
        pass


def resident_mb(program: Program) -> float:
    status = Path(f"/proc/{program.process.pid}/status").read_text(encoding="ascii")
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def ask(content: str, max_tokens: int = 16, **fields: object) -> chat_pb2.ChatCompletionRequest:
    message = chat_pb2.Message(role=chat_pb2.ROLE_USER, content=content)
    return chat_pb2.ChatCompletionRequest(messages=[message], max_tokens=max_tokens, **fields)  # type: ignore[arg-type]
