"""The server's life: port, load, warm-up, health, drain, exit code."""

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inference_server.boundary import ErrorBoundary
from inference_server.chat.types import ChatRequest, Message, Role
from inference_server.config import Settings
from inference_server.demo_model import CHECKPOINT_DIR
from inference_server.errors import EngineFailed, StartupError
from inference_server.health import HealthServicer
from inference_server.progress import restore_cursor, shown_progress
from inference_server.reflection import add_reflection
from inference_server.service_state import Phase, ServiceState
from inference_server.servicer import ChatServicer, ServedModel
from inference_server.watchdog import watch
from protos.chat.v1 import chat_pb2, chat_pb2_grpc

if TYPE_CHECKING:
    from inference_server.engine.engine import Engine
    from inference_server.loading import LoadedParts

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_CHAT_SERVICE = chat_pb2.DESCRIPTOR.services_by_name["ChatService"].full_name
_DEMO_NOTICE = "This is the embedded demo model, not Qwen3. Serve Qwen3 with --model DIR or `make run MODEL=DIR`."
_CLOSE_S = 0.5  # for calls that are left after the drain, and for watchers of health


async def serve(settings: Settings) -> int:
    """Runs until a signal or a failure; returns the exit code. Raises StartupError. A second signal exits at once."""
    state, stopping = ServiceState(), asyncio.Event()
    _on_signals(stopping)
    servicer = ChatServicer(_served_model(settings), state)
    server = grpc_server(settings, servicer, state)
    port = _bind(server, settings.host, settings.port)
    await server.start()
    _log.info("gRPC on %s:%d, loading %s", settings.host, port, settings.model)
    engine: Engine | None = None
    background: set[asyncio.Task[None]] = set()
    try:
        parts = await _until(stopping, _load(settings, state))
        if parts:
            engine = await _until(stopping, _make_ready(parts, settings, servicer, state, stopping, background))
        await stopping.wait()
        return 1 if state.phase is Phase.FAILED else await _drain(settings.drain_timeout_s, state)
    except EngineFailed:  # while it warmed up; its traceback is in the log
        return 1
    finally:
        for task in background:
            task.cancel()
        await server.stop(_CLOSE_S)
        if engine:
            await engine.stop()
        _log.info("ended")


def _on_signals(stopping: asyncio.Event) -> None:
    def on_signal() -> None:
        if stopping.is_set():
            restore_cursor()
            os._exit(1)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)


def _served_model(settings: Settings) -> ServedModel:
    demo = settings.model == "demo"
    if not demo and not Path(settings.model).is_dir():  # said here, before torch is imported
        raise StartupError(
            f"--model {settings.model}: no such directory; `make download` gets Qwen3, which a container wants mounted "
            f"there (docker run -v DIR:{settings.model}:ro); --model demo or INFERENCE_MODEL=demo needs no download"
        )
    return ServedModel(
        name=settings.served_model_name or ("demo" if demo else Path(settings.model).resolve().name),
        notice=_DEMO_NOTICE if demo else "",
        max_messages=settings.max_messages,
        max_message_bytes=settings.max_message_bytes,
    )


def grpc_server(settings: Settings, servicer: ChatServicer, state: ServiceState) -> grpc.aio.Server:
    """A server with all services on it, not yet started."""
    options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", settings.max_message_bytes)]
    server = grpc.aio.server(interceptors=[ErrorBoundary()], options=options)
    chat_pb2_grpc.add_ChatServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(state, _CHAT_SERVICE), server)
    if settings.reflection:
        add_reflection(server, (_CHAT_SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name))
    return server


def _bind(server: grpc.aio.Server, host: str, port: int) -> int:
    try:
        return server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except RuntimeError as error:
        raise StartupError(
            f"--port {port}: cannot listen on {host}:{port}; the port is taken, or the address is not this machine's"
        ) from error


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


async def _make_ready(
    parts: "LoadedParts",
    settings: Settings,
    servicer: ChatServicer,
    state: ServiceState,
    stopping: asyncio.Event,
    background: set[asyncio.Task[None]],
) -> "Engine":
    """Starts the engine and its watchdog, runs one answer through and opens for chats."""
    from inference_server.loading import assemble

    def on_failure(_: BaseException) -> None:
        state.enter(Phase.FAILED)
        stopping.set()

    engine, servicer.loaded = assemble(parts, servicer.served.name, on_failure)
    background.add(asyncio.create_task(watch(engine, state, settings.stall_timeout_s)))
    warm_up = ChatRequest(
        model=None, messages=(Message(Role.USER, "Hello"),), temperature=None, top_p=None, top_k=None, seed=0,
        max_tokens=2, stop=(), ignore_eos=True, return_token_ids=False,
    )  # fmt: skip
    completion = await servicer.loaded.completions.open(warm_up)
    async for _ in completion.deltas():
        pass
    state.enter(Phase.READY)
    _log.info("ready: %s on %s in %s", servicer.served.name, servicer.loaded.device, servicer.loaded.dtype)
    return engine


async def _drain(timeout_s: int, state: ServiceState) -> int:
    """Lets running chats end; those that take longer are cut off. Returns the exit code."""
    state.enter(Phase.DRAINING)
    _log.info("draining: running chats have %d s", timeout_s)
    try:
        await asyncio.wait_for(state.idle(), timeout_s)
    except TimeoutError:
        _log.warning("some chats were still running after %d s", timeout_s)
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
