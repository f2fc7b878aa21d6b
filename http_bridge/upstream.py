"""The bridge's calls to the gRPC server. Every call ends when its caller does: gRPC would let it run on."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import TypeVar

import grpc
from fastapi import Request
from grpc.aio import Metadata

from http_bridge.drain import Drain, ended_by_drain
from http_bridge.errors import ApiError, from_grpc, unreachable
from http_bridge.exchange import Exchange
from http_bridge.metrics import Metrics
from http_bridge.overload import Overload
from protos.chat.v1 import chat_pb2, chat_pb2_grpc

_T = TypeVar("_T")
_MODEL_TIMEOUT_S = 5.0
_ADMITTED = "chat-admitted"  # the initial metadata by which the server says so
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # a proxy of the environment is for the outside
    ("grpc.lb_policy_name", "round_robin"),
    # a server that comes back is found within a second, not within gRPC's two minutes
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.http2.bdp_probe", 0),  # a stream that is not read holds 64 KiB of events, not megabytes
    ("grpc.dns_min_time_between_resolutions_ms", 5000),  # a connection that ended may have been a replaced replica's
)
# Watches each server's health, so that one that drains or stalls gets no new chats though its connection lives on.
# https://github.com/grpc/proposal/blob/master/A17-client-side-health-checking.md
_ONLY_SERVING = (
    "grpc.service_config",
    '{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": "chat.v1.ChatService"}}',
)


class ClientGone(Exception):
    """The HTTP client has left; nobody reads an answer."""


class Upstream:
    """The servers behind one name.

    Chats go to those that say they are SERVING while there is one; else to any, which then says in words why not.
    """

    def __init__(self, target: str, drain: Drain, metrics: Metrics, overload: Overload) -> None:
        self._drain = drain
        self._overload = overload
        self._says_admitted = False  # of chats that are answered whole
        self._metrics = metrics
        self._any = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self._serving = grpc.aio.insecure_channel(target, options=(*_OPTIONS, _ONLY_SERVING))
        self._any_stub: chat_pb2_grpc.ChatServiceAsyncStub = chat_pb2_grpc.ChatServiceStub(self._any)
        metrics.upstream_ready.set_function(self._is_serving)
        self._serving_stub: chat_pb2_grpc.ChatServiceAsyncStub = chat_pb2_grpc.ChatServiceStub(self._serving)

    async def close(self) -> None:
        await self._any.close()
        await self._serving.close()

    @property
    def _chat_stub(self) -> "chat_pb2_grpc.ChatServiceAsyncStub":
        return self._serving_stub if self._is_serving() else self._any_stub

    def _is_serving(self) -> bool:
        """Whether any server says that it is SERVING. The metrics' thread asks too."""
        return self._serving.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY

    async def model(self) -> chat_pb2.GetModelResponse:
        """What is served. Raises ApiError."""
        call = self._any_stub.GetModel(chat_pb2.GetModelRequest(), timeout=_MODEL_TIMEOUT_S)
        try:
            with self._failures(), self._drain.running(call):
                return await call
        except ApiError as error:
            if error.status_code == 504:
                raise unreachable() from error
            raise

    async def create(
        self, request: chat_pb2.ChatCompletionRequest, exchange: Exchange, timeout_s: float | None, client: Request
    ) -> chat_pb2.ChatCompletion:
        """The whole answer. Raises ApiError, and ClientGone when the client leaves before it is there."""
        call = self._chat_stub.CreateChatCompletion(request, timeout=timeout_s, metadata=_metadata(exchange))
        with self._overload.asked(exchange.client) as taken_in, self._failures(), self._drain.running(call):
            if not self._says_admitted:
                taken_in()
            return await _unless_gone(asyncio.ensure_future(self._result(call, taken_in)), client)

    async def stream(
        self, request: chat_pb2.ChatCompletionRequest, exchange: Exchange, timeout_s: float | None
    ) -> AsyncGenerator[chat_pb2.ChatCompletionChunk | None]:
        """Yield None when the request has been admitted, then the answer's chunks. Closing it cancels the call.

        A server that does not say when it admits a request has done so when its first chunk is there. Raises ApiError.
        """
        call = self._chat_stub.StreamChatCompletion(request, timeout=timeout_s, metadata=_metadata(exchange))
        with self._overload.asked(exchange.client) as taken_in, self._failures(), self._drain.running(call):
            is_admitted = _ADMITTED in dict(await call.initial_metadata() or ())
            taken_in()
            if is_admitted:
                yield None
            async for chunk in call:
                if not is_admitted:
                    is_admitted = True
                    yield None
                yield chunk

    async def _result(
        self, call: grpc.aio.UnaryUnaryCall[chat_pb2.ChatCompletionRequest, _T], taken_in: Callable[[], None]
    ) -> _T:
        """Metadata come when the server has taken the chat in, from one that does not say so with the answer."""
        self._says_admitted = _ADMITTED in dict(await call.initial_metadata() or ())
        taken_in()
        return await call

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Makes an ApiError of a call that failed, or that the drain has ended."""
        try:
            yield
        except grpc.aio.AioRpcError as error:
            self._metrics.upstream_failed(error.code())
            raise from_grpc(error) from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._drain.is_over and task and not task.cancelling():
                raise ended_by_drain() from None
            raise


async def first_unless_gone(chunks: AsyncGenerator[_T], client: Request) -> _T:
    """The stream's first chunk. Raises ApiError, and ClientGone when the client leaves before it comes."""
    return await _unless_gone(asyncio.ensure_future(_first(chunks)), client)


async def _first(chunks: AsyncGenerator[_T]) -> _T:
    try:
        return await anext(chunks)
    except StopAsyncIteration as error:
        raise ApiError(500, "internal error") from error


async def _unless_gone(work: "asyncio.Future[_T]", client: Request) -> _T:
    """A handler that does not read is not told when its client leaves, so it has to watch."""
    gone = asyncio.ensure_future(_gone(client))
    gone.add_done_callback(lambda _: work.cancel())
    try:
        return await work
    except asyncio.CancelledError:
        if gone.done() and not gone.cancelled():
            raise ClientGone from None
        raise
    finally:
        work.cancel()
        gone.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


async def _gone(client: Request) -> None:
    while (await client.receive())["type"] != "http.disconnect":
        pass


def _metadata(exchange: Exchange) -> Metadata:
    return Metadata(("x-request-id", exchange.request_id), ("chat-client", exchange.client))
