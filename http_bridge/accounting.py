"""Around every request: its id, its times, its log line and its place in the metrics. Knows no JSON and no gRPC."""

import hashlib
import logging
import re
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from http_bridge.drain import Drain
from http_bridge.errors import own_fault
from http_bridge.exchange import CHAT_PATH, NOBODY_READS_IT, Exchange
from http_bridge.metrics import OTHER_ROUTE, Metrics
from observability.logs import fields

_log = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Accounting:
    """Gives every request an id, the client's where it sent a fit one, and returns it. Tells of its end."""

    def __init__(self, app: ASGIApp, metrics: Metrics, drain: Drain) -> None:
        self._app = app
        self._metrics = metrics
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = _header(scope, b"x-request-id").decode("latin-1")
        exchange = Exchange(sent if _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex, _client_of(scope))
        scope.setdefault("state", {})["exchange"] = exchange

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._begin_answer(exchange, message)
            await send(message)

        with self._metrics.in_progress():
            try:
                await self._app(scope, receive, send_on)
            except Exception as error:
                has_begun = exchange.status != NOBODY_READS_IT
                exchange.status, exchange.reason = 500, "internal_error"
                if has_begun:
                    raise
                _log.error("request %s failed", exchange.request_id, exc_info=error)
                await own_fault(exchange.request_id)(scope, receive, send_on)
            finally:
                self._end(exchange, scope)

    def _begin_answer(self, exchange: Exchange, message: Message) -> None:
        exchange.status = message["status"]
        if not (exchange.streams and exchange.status == 200):
            exchange.first_byte_s = exchange.elapsed_s
        message["headers"] = [*message["headers"], (b"x-request-id", exchange.request_id.encode())]
        if exchange.ignored_fields:
            message["headers"].append((b"x-ignored-fields", ", ".join(exchange.ignored_fields).encode()))
        if self._drain.is_draining:  # so that a kept connection finds its way to another bridge
            message["headers"].append((b"connection", b"close"))

    def _end(self, exchange: Exchange, scope: Scope) -> None:
        for call in exchange.at_end:
            call()
        route: str = getattr(scope.get("route"), "path", OTHER_ROUTE)
        self._metrics.request_ended(route, exchange.status, exchange.elapsed_s)
        if exchange.streams and exchange.status == 200 and exchange.first_byte_s is not None:
            self._metrics.first_chunk(exchange.first_byte_s)
        if route == CHAT_PATH:
            _log.info("chat", extra=_line(exchange))


def _client_of(scope: Scope) -> str:
    """Known by its key, else by its address. Of a key nothing can be told from it."""
    if key := _header(scope, b"authorization"):
        return hashlib.sha256(key).hexdigest()
    return str(scope["client"][0]) if scope.get("client") else ""


def _header(scope: Scope, wanted: bytes) -> bytes:
    return next((value for name, value in scope["headers"] if name == wanted), b"")


def _line(exchange: Exchange) -> dict[str, dict[str, object]]:
    first_byte_s = exchange.first_byte_s
    return fields(
        request_id=exchange.request_id,
        status=exchange.status,
        stream=exchange.streams,
        prompt_tokens=exchange.prompt_tokens,
        completion_tokens=exchange.completion_tokens,
        first_byte_ms=None if first_byte_s is None else round(first_byte_s * 1000, 1),
        total_ms=round(exchange.elapsed_s * 1000, 1),
        reason=exchange.reason or "client_gone",
    )
