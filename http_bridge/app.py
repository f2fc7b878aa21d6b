"""The HTTP routes. Each is one gRPC call between two translations."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from http_bridge.accounting import Accounting
from http_bridge.answers import ChatCompletion, Health, ModelCard, ModelList
from http_bridge.config import Settings
from http_bridge.cors import cors_options
from http_bridge.door import Door
from http_bridge.drain import Drain
from http_bridge.errors import ApiError, install_error_handlers, too_late
from http_bridge.event_stream import EventStream
from http_bridge.events import DONE, EventWriter, event
from http_bridge.exchange import CHAT_PATH, NOBODY_READS_IT, Exchange, exchange_of
from http_bridge.ignored_fields import IgnoredFieldsLog
from http_bridge.metrics import Metrics
from http_bridge.openapi import TIMEOUT_PATTERN, describe
from http_bridge.overload import Overload
from http_bridge.paths import SamePaths
from http_bridge.schemas import ChatCompletionRequest
from http_bridge.strict_request import StrictRequest, StrictRoute
from http_bridge.translate import finish_reason, to_completion, to_grpc, to_health, to_model_card
from http_bridge.upstream import ClientGone, Upstream, first_unless_gone
from protos.chat.v1 import chat_pb2

Chunks = AsyncGenerator[chat_pb2.ChatCompletionChunk | None]


def create_app(settings: Settings, metrics: Metrics, drain: Drain) -> FastAPI:
    """The bridge as an ASGI application."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.upstream = Upstream(settings.target, drain, metrics, app.state.overload)
        yield
        await app.state.upstream.close()

    app: FastAPI = FastAPIOffline(
        title="Qwen3 chat",
        description="OpenAI's chat completions over a chat.v1 gRPC server.",
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.max_body_bytes = settings.max_body_bytes
    app.state.read_timeout_s = settings.read_timeout_s
    app.state.refuses_unknown_fields = settings.unknown_fields == "refuse"
    app.state.ignored_fields_log = IgnoredFieldsLog()
    app.state.drain = drain
    app.state.overload = Overload()
    app.router.route_class = StrictRoute
    app.state.sse_keepalive_s = settings.sse_keepalive_s
    allowed_hosts = (*settings.allowed_hosts, settings.host.lower())
    app.add_middleware(Door, allowed_hosts=allowed_hosts, cors_origins=settings.cors_origins)
    app.add_middleware(Accounting, metrics=metrics, drain=drain)
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, **cors_options(settings.cors_origins))
    app.add_middleware(SamePaths)
    install_error_handlers(app)
    _add_routes(app)
    describe(app)
    metrics.know_routes(route.path for route in app.routes if isinstance(route, APIRoute))
    return app


# Coroutines, because FastAPI takes any other function to a thread.
async def _upstream(request: Request) -> Upstream:
    upstream: Upstream = request.app.state.upstream
    return upstream


async def _drain(request: Request) -> Drain:
    drain: Drain = request.app.state.drain
    return drain


async def _accepted_chat(request: Request, drain: Annotated[Drain, Depends(_drain)]) -> Exchange:
    """The exchange of a chat that may run. Raises ApiError while the bridge drains."""
    drain.accept_chat()
    exchange = exchange_of(request.scope)
    exchange.at_end.append(drain.chat_ended)
    return exchange


async def _timeout_s(x_request_timeout: Annotated[str | None, Header(description="Seconds.")] = None) -> float | None:
    if x_request_timeout is None:
        return None
    if not re.fullmatch(TIMEOUT_PATTERN, x_request_timeout):
        raise ApiError(400, "X-Request-Timeout: expected seconds, above 0 and at most 86400")
    return float(x_request_timeout)


_Upstream = Annotated[Upstream, Depends(_upstream)]
_Drain = Annotated[Drain, Depends(_drain)]
_AcceptedChat = Annotated[Exchange, Depends(_accepted_chat)]
_Timeout = Annotated[float | None, Depends(_timeout_s)]


def _add_routes(app: FastAPI) -> None:
    """The contract's paths."""

    @app.post(CHAT_PATH, responses={200: {"model": ChatCompletion, "description": _ANSWER}})
    async def chat_completions(
        body: ChatCompletionRequest,
        request: StrictRequest,
        upstream: _Upstream,
        timeout_s: _Timeout,
        exchange: _AcceptedChat,
    ) -> Response:
        """Answers a conversation, whole or as server-sent events."""
        await request.give_way()
        request.note_ignored_fields()
        await request.give_way()
        asked, exchange.streams = to_grpc(body), bool(body.stream)
        await request.give_way()
        if timeout_s is not None:
            timeout_s -= exchange.elapsed_s
            if timeout_s <= 0:
                raise too_late()
        try:
            if body.stream:
                return await _streamed(upstream.stream(asked, exchange, timeout_s), body, request)
            answer = await upstream.create(asked, exchange, timeout_s, request)
            _note_end(exchange, answer)
            return JSONResponse(to_completion(answer, body))
        except ClientGone:
            return Response(status_code=NOBODY_READS_IT)

    @app.get("/v1/models", responses={200: {"model": ModelList}})
    async def models(upstream: _Upstream) -> Response:
        """Lists the served model."""
        return JSONResponse({"object": "list", "data": [to_model_card(await upstream.model())]})

    @app.get("/v1/models/{model_id:path}", responses={200: {"model": ModelCard}})
    async def model(model_id: str, upstream: _Upstream) -> Response:
        """Tells about one model."""
        served = await upstream.model()
        if model_id.removeprefix("Qwen/") != served.name.removeprefix("Qwen/"):
            problem = f'model: not served here; this server has "{served.name}"'
            raise ApiError(404, problem, param="model", code="model_not_found")
        return JSONResponse(to_model_card(served))

    @app.get("/health", responses={200: {"model": Health}, 503: {"model": Health}})
    async def health(upstream: _Upstream, drain: _Drain) -> Response:
        """Says whether chats can be answered: 200 or 503."""
        try:
            state = {"status": "draining"} if drain.is_draining else to_health(await upstream.model())
        except ApiError:
            state = {"status": "unavailable"}
        headers = {} if state["status"] == "ok" else {"Retry-After": "2"}
        return JSONResponse(state, 200 if state["status"] == "ok" else 503, headers)

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        """Says that the bridge itself runs."""
        return {"status": "ok"}


_ANSWER = "The answer, whole or as events."


async def _streamed(chunks: Chunks, body: ChatCompletionRequest, request: Request) -> Response:
    """Waits until the request is admitted, so that one that is refused gets a proper status."""
    try:
        await first_unless_gone(chunks, request)
    except BaseException:
        await chunks.aclose()
        raise
    events = _events(chunks, body, exchange_of(request.scope))
    return EventStream(events, request.app.state.sse_keepalive_s)


async def _events(chunks: Chunks, body: ChatCompletionRequest, exchange: Exchange) -> AsyncGenerator[str]:
    """OpenAI's events. An error on the way is an event too, and then there is no [DONE]."""
    writer, held, chunk = EventWriter(body), "", None
    async with aclosing(chunks):
        try:
            async for chunk in chunks:
                assert chunk
                held += writer.written(chunk)
                if not _is_last(chunk):
                    exchange.note_first_event()
                    yield held
                    held = ""
        except ApiError as error:
            exchange.reason = error.reason
            yield held + event(error.body())
            return
        if chunk is None:
            exchange.reason = "internal_error"
            yield event(ApiError(500, "internal error").body())
            return
        exchange.note_first_event()
        _note_end(exchange, chunk)
        yield held + DONE  # in one piece, for each costs client and bridge the same whatever is in it


def _is_last(chunk: chat_pb2.ChatCompletionChunk) -> bool:
    """Nothing but the call's status comes after it."""
    return chunk.HasField("usage")


def _note_end(exchange: Exchange, ended: chat_pb2.ChatCompletion | chat_pb2.ChatCompletionChunk) -> None:
    exchange.reason = finish_reason(ended)
    exchange.prompt_tokens, exchange.completion_tokens = ended.usage.prompt_tokens, ended.usage.completion_tokens
