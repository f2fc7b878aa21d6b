"""The server's life: port, load, warm-up, health, drain, exit code."""

import asyncio
import contextlib
import gc
import logging
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from inference_server.accounting import Accounting
from inference_server.chat.types import ChatRequest, Message, Role
from inference_server.config import Settings
from inference_server.demo_model import CHECKPOINT_DIR
from inference_server.errors import EngineFailed, StartupError
from inference_server.listener import bind, grpc_server
from inference_server.metrics import Metrics
from inference_server.progress import restore_cursor, shown_progress
from inference_server.service_state import Phase, ServiceState
from inference_server.servicer import ChatServicer, ServedModel
from inference_server.watchdog import watch
from observability.addresses import host_and_port, usable_host
from observability.exporter import exported
from observability.signals import EndSignals
from observability.stream import leave

if TYPE_CHECKING:
    from inference_server.engine.engine import Engine
    from inference_server.loading import LoadedParts

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_DEMO_NOTICE = "This is the embedded demo model, not Qwen3. Serve Qwen3 with --model DIR or `make run MODEL=DIR`."
_WARM_UP = ChatRequest(
    model=None, messages=(Message(Role.USER, "Hello"),), temperature=None, top_p=None, top_k=None, seed=0,
    max_tokens=2, stop=(), ignore_eos=True, return_token_ids=False,
)  # fmt: skip
_REFUSING_S = 2.0  # how long a draining server refuses new chats itself before it sends clients away
_LAST_WORDS_S = 0.2  # for the log, after a second signal
_CLOSE_S = 0.5  # for calls that are left after the drain, and for watchers of health


async def serve(settings: Settings) -> int:
    """Runs until a signal or a failure; returns the exit code. Raises StartupError. A second signal exits at once."""
    life = _Life(settings)
    _on_signals(life.stopping)
    server = grpc_server(settings, life.servicer, life.state)
    host = usable_host(settings.host)
    port = bind(server, host, settings.port)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exported(life.metrics.registry, host, settings.metrics_port))
        except OSError as error:
            raise StartupError(
                f"--metrics-port {settings.metrics_port}: cannot listen there: {error.strerror}"
            ) from error
        if settings.metrics_port:
            _log.info("metrics on %s", host_and_port(host, settings.metrics_port))
        await server.start()
        _log.info("gRPC on %s, loading %s", host_and_port(host, port), settings.model)
        try:
            return await life.run(server)
        finally:
            await server.stop(_CLOSE_S)
            await life.end()
            _log.info("ended")


class _Life:
    """From the open port to the end."""

    def __init__(self, settings: Settings) -> None:
        self.state, self.stopping = ServiceState(), asyncio.Event()
        self.metrics = Metrics(self.state)
        self.servicer = ChatServicer(_served_model(settings), self.state, Accounting(self.metrics))
        self._settings = settings
        self._engine: Engine | None = None
        self._watching: asyncio.Task[None] | None = None

    async def run(self, server: grpc.aio.Server) -> int:
        """Returns the exit code."""
        try:
            parts = await _until(self.stopping, _load(self._settings, self.state))
            if parts:
                await _until(self.stopping, self._make_ready(parts))
            await self.stopping.wait()
        except EngineFailed:  # while it warmed up; its traceback is in the log
            return 1
        if self.state.phase is Phase.FAILED:
            return 1
        return await _drain(server, self._settings.drain_timeout_s, self.state)

    async def end(self) -> None:
        """Stops the engine and its watchdog."""
        if self._watching:
            self._watching.cancel()
        if self._engine:
            await self._engine.stop()

    async def _make_ready(self, parts: "LoadedParts") -> None:
        """Starts the engine and its watchdog, runs one answer through and opens for chats."""
        from inference_server.loading import assemble

        served = self.servicer.served
        self._engine, loaded = assemble(parts, self._settings, served.name, self._on_failure, self.metrics)
        self.servicer.loaded = loaded
        self._watching = asyncio.create_task(watch(self._engine, self.state, self._settings.stall_timeout_s))
        completion = await loaded.completions.open(_WARM_UP)
        async for _ in completion.deltas():
            pass
        self.metrics.start_counting()
        gc.freeze()  # nobody looks for garbage in what has been loaded
        gc.enable()
        self.state.enter(Phase.READY)
        _log.info("ready: %s on %s in %s", served.name, loaded.device, loaded.dtype)

    def _on_failure(self, _: BaseException) -> None:
        self.state.enter(Phase.FAILED)
        self.stopping.set()


def _on_signals(stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def begin() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is about to end
            loop.call_soon_threadsafe(stopping.set)

    def hurry() -> None:
        restore_cursor()
        leave(1, _LAST_WORDS_S)

    EndSignals(begin, hurry).install()


def _served_model(settings: Settings) -> ServedModel:
    demo = settings.model == "demo"
    return ServedModel(
        name=settings.served_model_name or ("demo" if demo else Path(settings.model).resolve().name),
        notice=_DEMO_NOTICE if demo else "",
        max_messages=settings.max_messages,
        max_message_bytes=settings.max_message_bytes,
        max_request_s=settings.max_request_s,
        write_timeout_s=settings.write_timeout_s,
    )


async def _load(settings: Settings, state: ServiceState) -> "LoadedParts":
    checkpoint_dir = Path(settings.model)
    if settings.model == "demo":
        checkpoint_dir = CHECKPOINT_DIR
        _log.info(_DEMO_NOTICE)

    def load() -> "LoadedParts":
        from inference_server.loading import load_parts

        with shown_progress("loading the model") as show:

            def on_progress(share: float) -> None:
                if int(share * 100) > state.load_percent:
                    state.load_percent = int(share * 100)
                    show(state.load_percent)

            return load_parts(checkpoint_dir, settings, on_progress)

    return await _in_daemon_thread(load)


async def _drain(server: grpc.aio.Server, timeout_s: int, state: ServiceState) -> int:
    """Lets running chats end; those that take longer are cut off. Returns the exit code.

    New chats are refused in words at first. Then clients are told to go: gRPC's GOAWAY makes them look for another
    server, where a connection that stays open would keep bringing theirs here.
    """
    state.enter(Phase.DRAINING)
    _log.info("draining: running chats have %d s", timeout_s)
    closing: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(timeout_s):
            idle = asyncio.ensure_future(state.idle())
            await asyncio.wait({idle}, timeout=_REFUSING_S)
            if not idle.done():
                closing = asyncio.create_task(server.stop(timeout_s))
            await idle
    except TimeoutError:
        _log.warning("some chats were still running after %d s", timeout_s)
    if closing:
        closing.cancel()
    return 1 if state.phase is Phase.FAILED else 0


async def _until(stopping: asyncio.Event, work: Coroutine[Any, Any, _T]) -> _T | None:
    """The work's result; None where the signal to stop came first."""
    working, waiting = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if working.done():
        return working.result()
    working.cancel()
    return None


async def _in_daemon_thread(function: Callable[[], _T]) -> _T:
    """asyncio.to_thread's threads keep the process from ending; a load that is stuck on a slow disk must not."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[_T] = loop.create_future()

    def settle(settle_with: Callable[[Any], None], value: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(lambda: None if result.done() else settle_with(value))

    def run() -> None:
        try:
            value = function()
        except BaseException as error:
            settle(result.set_exception, error)
        else:
            settle(result.set_result, value)

    threading.Thread(target=run, name="load", daemon=True).start()
    return await result
