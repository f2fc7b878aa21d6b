"""Before every route: whether the request is addressed to this service, and from a page that may use it."""

import logging
from collections.abc import Collection, Sequence

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from http_bridge.errors import ApiError
from http_bridge.exchange import exchange_of
from http_bridge.hosts import AllowedHosts, Authority, allows_origin, authority_of
from observability.descriptors import MinuteLog

_log = logging.getLogger(__name__)
_NO_HOST = Authority("", None)
_Headers = Sequence[tuple[bytes, bytes]]


class Door:
    """Refuses unknown hosts with 421 (RFC 9110, 7.4) and foreign origins with 403."""

    def __init__(self, app: ASGIApp, allowed_hosts: Collection[str], cors_origins: Collection[str]) -> None:
        self._app = app
        self._allowed = AllowedHosts(allowed_hosts)
        self._cors_origins = cors_origins
        self._refusals = MinuteLog(_log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _header(scope["headers"], b"expect"):
            receive, send = _closing_unless_read(receive, send)
        try:
            self._check(scope["method"], scope["headers"])
        except ApiError as refusal:
            exchange_of(scope).reason = refusal.reason
            self._refusals.warning("a request was refused: %s", refusal.detail)
            await JSONResponse(refusal.body(), refusal.status_code)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, method: str, headers: _Headers) -> None:
        """Raises ApiError. A CORS preflight has the origin that asks for leave, so it is CORS that answers it."""
        host = authority_of(_header(headers, b"host")) or _NO_HOST
        if not self._allowed.allows(host):
            problem = "Host: this name is not served here; allow it with --allowed-hosts (BRIDGE_ALLOWED_HOSTS)"
            raise ApiError(421, problem, code="host_not_allowed")
        origin = _header(headers, b"origin")
        if origin and method != "OPTIONS" and not allows_origin(origin, host, self._cors_origins):
            problem = "Origin: pages of this origin may not use the service; allow it with --cors-origins"
            raise ApiError(403, problem, code="origin_not_allowed")


def _header(headers: _Headers, wanted: bytes) -> str:
    """Its values; empty if it is not there."""
    return ", ".join(value.decode("latin-1") for name, value in headers if name == wanted)


def _closing_unless_read(receive: Receive, send: Send) -> tuple[Receive, Send]:
    """An answer before the 100 Continue has to say that nothing more is read (RFC 9110, 10.1.1)."""
    is_read = False

    async def receive_on() -> Message:
        nonlocal is_read
        is_read = True
        return await receive()

    async def send_on(message: Message) -> None:
        if message["type"] == "http.response.start" and not is_read:
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        await send(message)

    return receive_on, send_on
