"""The HTTP routes. Each is one gRPC call between two translations."""

import json
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from http_bridge.answers import ChatCompletion, ErrorBody, Health, ModelCard, ModelList
from http_bridge.config import Settings
from http_bridge.errors import ApiError, install_error_handlers
from http_bridge.schemas import ChatCompletionRequest
from http_bridge.strict_request import StrictRoute
from http_bridge.translate import ChunkTranslator, to_completion, to_grpc, to_health, to_model_card
from http_bridge.upstream import ClientGone, Upstream, first_unless_gone
from protos.chat.v1 import chat_pb2

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_MAX_TIMEOUT_S = 86_400.0
_NOBODY_READS_IT = 499  # nginx's number for a client that closed the request


def create_app(settings: Settings) -> FastAPI:
    """The bridge as an ASGI application."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.upstream = Upstream(settings.target)
        yield
        await app.state.upstream.close()

    app: FastAPI = FastAPIOffline(
        title="Qwen3 chat",
        description="OpenAI's chat completions over a chat.v1 gRPC server.",
        lifespan=lifespan,
        redoc_url=None,
        responses={"default": {"model": ErrorBody, "description": "OpenAI's error object."}},
    )
    app.state.max_body_bytes = settings.max_body_bytes
    app.router.route_class = StrictRoute
    app.add_middleware(RequestIds)
    install_error_handlers(app)
    _add_routes(app)
    return app


class RequestIds:
    """Gives every request an id, the client's where it sent a fit one, and returns it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
        request_id = sent if _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        await self._app(scope, receive, send_with_id)


def _upstream(request: Request) -> Upstream:
    upstream: Upstream = request.app.state.upstream
    return upstream


def _timeout_s(x_request_timeout: Annotated[str | None, Header(description="Seconds.")] = None) -> float | None:
    if x_request_timeout is None:
        return None
    timeout_s = float(x_request_timeout) if _SECONDS.fullmatch(x_request_timeout) else -1.0
    if not 0 < timeout_s <= _MAX_TIMEOUT_S:
        raise ApiError(400, f"X-Request-Timeout: expected seconds, above 0 and at most {_MAX_TIMEOUT_S:.0f}")
    return timeout_s


_Upstream = Annotated[Upstream, Depends(_upstream)]
_Timeout = Annotated[float | None, Depends(_timeout_s)]


def _add_routes(app: FastAPI) -> None:
    """The contract's paths."""

    @app.post("/v1/chat/completions", responses={200: {"model": ChatCompletion, "description": _ANSWER}})
    async def chat_completions(
        body: ChatCompletionRequest, request: Request, upstream: _Upstream, timeout_s: _Timeout
    ) -> Response:
        """Answers a conversation, whole or as server-sent events."""
        asked, request_id = to_grpc(body), request.scope["state"]["request_id"]
        try:
            if body.stream:
                return await _streamed(upstream.stream(asked, request_id, timeout_s), body, request)
            answer = await upstream.create(asked, request_id, timeout_s, request)
            return JSONResponse(to_completion(answer, body))
        except ClientGone:
            return Response(status_code=_NOBODY_READS_IT)

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
    async def health(upstream: _Upstream) -> Response:
        """Says whether chats can be answered: 200 or 503."""
        try:
            state = to_health(await upstream.model())
        except ApiError:
            state = {"status": "unavailable"}
        headers = {} if state["status"] == "ok" else {"Retry-After": "2"}
        return JSONResponse(state, 200 if state["status"] == "ok" else 503, headers)

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        """Says that the bridge itself runs."""
        return {"status": "ok"}


_ANSWER = "The answer; with `stream` true, `chat.completion.chunk` events and at last `data: [DONE]`."


async def _streamed(
    chunks: AsyncGenerator[chat_pb2.ChatCompletionChunk], body: ChatCompletionRequest, request: Request
) -> Response:
    """Waits for the first chunk, so that a request that fails before it gets a proper status."""
    try:
        first = await first_unless_gone(chunks, request)
    except BaseException:
        await chunks.aclose()
        raise
    return StreamingResponse(_events(first, chunks, body), media_type="text/event-stream", headers=_UNBUFFERED)


_UNBUFFERED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


async def _events(
    first: chat_pb2.ChatCompletionChunk,
    chunks: AsyncGenerator[chat_pb2.ChatCompletionChunk],
    body: ChatCompletionRequest,
) -> AsyncGenerator[str]:
    """OpenAI's events. An error on the way is an event too, and then there is no [DONE]."""
    translator = ChunkTranslator(first, body)
    async with aclosing(chunks):
        yield _event(translator.opening())
        try:
            for event in translator.events(first):
                yield _event(event)
            async for chunk in chunks:
                yield "".join(_event(event) for event in translator.events(chunk))
        except ApiError as error:
            yield _event(error.body())
            return
        yield "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text.translate(_LINE_ENDS)}\n\n"


# Some clients end a line at these too, within an event; JSON allows them to be written as escapes.
_LINE_ENDS = {ord(character): f"\\u{ord(character):04x}" for character in "\x85\u2028\u2029"}
