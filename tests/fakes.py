"""A model runner that computes nothing, and the whole service around it inside the test's own event loop."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from collections.abc import Sequence as Rows
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass

import torch

from http_bridge.config import Settings as BridgeSettings
from http_bridge.metrics import Metrics as BridgeMetrics
from http_bridge.server import BridgeServer, listen
from inference_server.accounting import Accounting
from inference_server.admission import Admission, QueueLimits
from inference_server.chat.prompt import PromptEncoder
from inference_server.chat.reply import Vocabulary
from inference_server.completion import Completions, SamplingDefaults
from inference_server.config import Settings
from inference_server.demo_model import CHECKPOINT_DIR
from inference_server.engine.engine import Engine
from inference_server.engine.kv_cache import KVCache
from inference_server.engine.pace import Pace
from inference_server.engine.sampler import Sampler, greedy_tokens
from inference_server.engine.scheduler import Scheduler, StepBudget
from inference_server.engine.step import Step
from inference_server.engine.types import Chunk, Computed
from inference_server.listener import grpc_server
from inference_server.metrics import Metrics
from inference_server.service_state import Phase, ServiceState
from inference_server.servicer import ChatServicer, LoadedService, ServedModel

ENDLESS_TOKEN = 70  # an ordinary one-byte token of the demo tokenizer
VOCABULARY = 2500


UNLIMITED = QueueLimits(100_000, 2**40, 1e9)


class FakeRunner:
    """Answers every sequence with one token for ever. A gated one takes a step only when it is allowed one."""

    def __init__(self, gated: bool = False, step_s: float = 0.0) -> None:
        self.step_count = 0
        self._step_s = step_s
        self.error: Exception | None = None
        self.cleared: list[int] = []
        self._steps_allowed = threading.Semaphore(0) if gated else None

    def allow(self, steps: int) -> None:
        assert self._steps_allowed
        self._steps_allowed.release(steps)

    def forward(self, chunks: Rows[Chunk], keep_logits: bool) -> Computed:
        if self._steps_allowed and not self.error:
            self._steps_allowed.acquire()
        if self.error:
            raise self.error
        self.step_count += 1
        time.sleep(self._step_s)
        logits = torch.stack(self.rows(chunks))
        return Computed(greedy_tokens(logits), logits)

    def rows(self, chunks: Rows[Chunk]) -> list[torch.Tensor]:
        """A row of logits for each chunk."""
        return [one_hot(ENDLESS_TOKEN) for _ in chunks]

    def probe(self) -> None:
        if self.error:
            raise self.error

    def clear(self, block_ids: list[int]) -> None:
        self.cleared += block_ids


def one_hot(token_id: int) -> torch.Tensor:
    """Logits whose likeliest token is this one: [V]."""
    logits = torch.zeros(VOCABULARY)
    logits[token_id] = 10.0
    return logits


def engine_over(
    runner: FakeRunner,
    on_failure: Callable[[BaseException], None],
    stop_token_ids: frozenset[int] = frozenset({0}),
    block_count: int = 4096,
    max_sequences: int = 64,
    max_step_tokens: int = 64,
    on_step: Callable[[float], None] = lambda seconds: None,
    max_chunk_delay_s: float = 0.0,
    niceness: int = 0,
    pace: Pace | None = None,
) -> Engine:
    """A running engine, with the real scheduler, cache and sampler."""
    cache = KVCache(block_count, 16)
    scheduler = Scheduler(cache, stop_token_ids, max_sequences, StepBudget(max_step_tokens))
    step = Step(runner, Sampler(stop_token_ids))
    engine = Engine(step, scheduler, on_failure, on_step, max_chunk_delay_s, niceness, pace)
    engine.start()
    return engine


@dataclass(frozen=True)
class InProcessService:
    """Both programs' insides, with their parts in reach."""

    runner: FakeRunner
    engine: Engine
    metrics: Metrics
    state: ServiceState
    grpc_address: str
    url: str

    @property
    def sequence_count(self) -> int:
        """Sequences that the engine has not done with."""
        return self.engine.use.running_count + self.engine.use.waiting_count


def settings(**changes: object) -> Settings:
    """The defaults of the command line."""
    defaults: dict[str, object] = {
        "model": "demo", "served_model_name": None, "host": "127.0.0.1", "port": 0, "device": "cpu", "dtype": "auto",
        "max_context_tokens": None, "max_sequences": 128, "max_step_tokens": None, "kv_cache_gib": None,
        "gpu_memory_fraction": 0.9, "prefix_caching": True, "stall_timeout_s": 5, "max_queued_requests": 256,
        "max_queued_tokens": 2**20, "max_queue_wait_s": 60, "max_client_requests": 0, "max_request_s": 3600,
        "write_timeout_s": 30,
        "max_chunk_delay_ms": 100, "max_messages": 1024, "max_message_bytes": 4 * 2**20,
        "reflection": True, "drain_timeout_s": 30, "metrics_port": 0, "log_format": "text", "log_level": "info",
    }  # fmt: skip
    return Settings(**(defaults | changes))  # type: ignore[arg-type]


@asynccontextmanager
async def in_process_service(
    runner: FakeRunner,
    max_sequences: int = 64,
    queue: QueueLimits = UNLIMITED,
    max_request_s: int = 3600,
    write_timeout_s: int = 30,
) -> AsyncIterator[InProcessService]:
    """A ready gRPC server over the runner, and a bridge in front of it."""
    state = ServiceState()
    metrics = Metrics(state)
    engine = engine_over(
        runner, lambda _: state.enter(Phase.FAILED), max_sequences=max_sequences,
        on_step=metrics.observe_step,
    )  # fmt: skip
    served = ServedModel("fake", "", 1024, 4 * 2**20, max_request_s, write_timeout_s)
    servicer = ChatServicer(served, state, Accounting(metrics))
    encoder, defaults = PromptEncoder(CHECKPOINT_DIR), SamplingDefaults(0.0, 1.0, 0, 0.0, 1.0)
    completions = Completions(
        engine, encoder, Vocabulary(encoder.tokenizer), defaults, ("fake",), 32_768, frozenset({0}),
        metrics.observe_gap,
    )  # fmt: skip
    metrics.describe({"model_name": "fake"}, lambda: engine.use)
    metrics.start_counting()
    admission = Admission(queue, engine)
    servicer.loaded = LoadedService(completions, admission, "float32", "cpu", lambda: engine.use, {})
    server = grpc_server(settings(), servicer, state)
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    state.enter(Phase.READY)
    async with in_process_bridge(f"127.0.0.1:{grpc_port}") as bridge:
        yield InProcessService(runner, engine, metrics, state, f"127.0.0.1:{grpc_port}", bridge.url)
    await server.stop(0)
    if runner._steps_allowed:
        runner.allow(1000)
    await engine.stop()


def bridge_settings(target: str, **changes: object) -> BridgeSettings:
    """The defaults of the command line, but for a short drain and no metrics' port."""
    defaults: dict[str, object] = {
        "target": target, "host": "127.0.0.1", "port": 0, "allowed_hosts": (), "cors_origins": (),
        "sse_keepalive_s": 10, "max_body_bytes": 4 * 2**20,
        "unknown_fields": "ignore", "read_timeout_s": 10, "write_timeout_s": 30,
        "drain_timeout_s": 1, "metrics_port": 0, "log_level": "info",
        "log_format": "text",
    }  # fmt: skip
    return BridgeSettings(**(defaults | changes))  # type: ignore[arg-type]


@dataclass(frozen=True)
class InProcessBridge:
    """A bridge in the test's own event loop."""

    server: BridgeServer
    metrics: BridgeMetrics
    url: str
    port: int
    serving: "asyncio.Task[None]"


@asynccontextmanager
async def in_process_bridge(target: str, **changes: object) -> AsyncIterator[InProcessBridge]:
    """Serves inside the block, unless its drain ends it before."""
    settings, metrics = bridge_settings(target, **changes), BridgeMetrics()
    server, listener = BridgeServer(settings, metrics), listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server.capture_signals = nullcontext  # type: ignore[assignment,method-assign]  # pytest keeps its own
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield InProcessBridge(server, metrics, f"http://127.0.0.1:{port}", port, serving)
    finally:
        server.should_exit = True
        await serving


async def until(condition: object, timeout_s: float = 10.0) -> None:
    """Returns once condition() is true; the time is generous and only ends a test that hangs."""
    assert callable(condition)
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)
