"""A model runner that computes nothing, and the whole service around it inside the test's own event loop."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass

import torch
import uvicorn

from http_bridge.app import create_app
from http_bridge.config import Settings as BridgeSettings
from inference_server.chat.prompt import PromptEncoder
from inference_server.completion import Completions, SamplingDefaults
from inference_server.config import Settings
from inference_server.demo_model import CHECKPOINT_DIR
from inference_server.engine.engine import Engine
from inference_server.engine.types import Sequence
from inference_server.server import grpc_server
from inference_server.service_state import Phase, ServiceState
from inference_server.servicer import ChatServicer, LoadedService, ServedModel

ENDLESS_TOKEN = 70  # an ordinary one-byte token of the demo tokenizer
_VOCABULARY = 2500


class FakeRunner:
    """Answers with one token for ever. A gated one takes a step only when it is allowed one."""

    def __init__(self, gated: bool = False) -> None:
        self.step_count = 0
        self.running: set[Sequence] = set()
        self.error: Exception | None = None
        self._steps_allowed = threading.Semaphore(0) if gated else None

    def allow(self, steps: int) -> None:
        assert self._steps_allowed
        self._steps_allowed.release(steps)

    @property
    def sequence_count(self) -> int:
        return len(self.running)

    def forward(self, sequence: Sequence) -> torch.Tensor | None:
        self.running.add(sequence)
        if self._steps_allowed:
            self._steps_allowed.acquire()
        if self.error:
            raise self.error
        self.step_count += 1
        logits = torch.zeros(1, _VOCABULARY)
        logits[0, ENDLESS_TOKEN] = 1.0
        return logits

    def release(self, sequence: Sequence) -> None:
        self.running.discard(sequence)


@dataclass(frozen=True)
class InProcessService:
    """Both programs' insides, with their parts in reach."""

    runner: FakeRunner
    state: ServiceState
    grpc_address: str
    url: str


def settings(**changes: object) -> Settings:
    """The defaults of the command line."""
    defaults: dict[str, object] = {
        "model": "demo", "served_model_name": None, "host": "127.0.0.1", "port": 0, "device": "cpu", "dtype": "auto",
        "max_context_tokens": None, "max_messages": 1024, "max_message_bytes": 4 * 2**20, "reflection": True,
        "drain_timeout_s": 30, "log_level": "info",
    }  # fmt: skip
    return Settings(**(defaults | changes))  # type: ignore[arg-type]


@asynccontextmanager
async def in_process_service(runner: FakeRunner) -> AsyncIterator[InProcessService]:
    """A ready gRPC server over the runner, and a bridge in front of it."""
    state = ServiceState()
    engine = Engine(runner, frozenset({0}), on_failure=lambda _: state.enter(Phase.FAILED))  # type: ignore[arg-type]
    engine.start()
    servicer = ChatServicer(ServedModel("fake", "", 1024, 4 * 2**20), state)
    completions = Completions(engine, PromptEncoder(CHECKPOINT_DIR), SamplingDefaults(0.0, 1.0, 0), ("fake",), 32_768)
    servicer.loaded = LoadedService(completions, "float32", "cpu", {})
    server = grpc_server(settings(), servicer, state)
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    state.enter(Phase.READY)
    async with _bridge(f"127.0.0.1:{grpc_port}") as http_port:
        yield InProcessService(runner, state, f"127.0.0.1:{grpc_port}", f"http://127.0.0.1:{http_port}")
    await server.stop(0)
    if runner._steps_allowed:
        runner.allow(1000)
    await engine.stop()


@asynccontextmanager
async def _bridge(target: str) -> AsyncIterator[int]:
    app = create_app(BridgeSettings(target, "127.0.0.1", 0, 4 * 2**20, 1, "info"))
    server = uvicorn.Server(
        uvicorn.Config(app, http="h11", log_config=None, host="127.0.0.1", port=0, timeout_graceful_shutdown=1)
    )
    server.capture_signals = nullcontext  # type: ignore[assignment,method-assign]  # pytest keeps its own
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


async def until(condition: object, timeout_s: float = 10.0) -> None:
    """Returns once condition() is true; the time is generous and only ends a test that hangs."""
    assert callable(condition)
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)
