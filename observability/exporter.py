"""Serves a program's metrics to Prometheus on a port of their own, from a thread with an event loop of its own.

prometheus_client makes the answer (text or OpenMetrics, plain or gzip). Its own server would start a thread for each
connection, without a bound or a timeout, and answer on every path.
"""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import h11
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import choose_encoder

from observability.descriptors import LoopErrors

_log = logging.getLogger(__name__)
_MAX_CONNECTIONS = 32
_CONNECTION_S = 10.0  # from its begin to its end; Prometheus itself waits for 10 s
_MAX_HEAD_BYTES = 16 * 1024
_STOP_S = 1.0
_Answer = tuple[int, list[tuple[str, str]], bytes]


@contextlib.contextmanager
def exported(registry: CollectorRegistry, host: str, port: int) -> Iterator[int | None]:
    """Serve `/metrics` inside the block; port 0 serves nothing. Yields the port. Raises OSError if it is taken."""
    if not port:
        yield None
        return
    is_ipv6 = ":" in host
    family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
    both = is_ipv6 and socket.has_dualstack_ipv6()  # `::` takes IPv4 too
    listener = socket.create_server((host, port), family=family, dualstack_ipv6=both)
    loop, stopping = asyncio.new_event_loop(), asyncio.Event()

    def run() -> None:
        with contextlib.closing(loop):
            loop.run_until_complete(_serve(registry, listener, stopping))

    thread = threading.Thread(target=run, name="metrics", daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(_STOP_S)


async def _serve(registry: CollectorRegistry, listener: socket.socket, stopping: asyncio.Event) -> None:
    loop, open_ones = asyncio.get_running_loop(), dict[_Connection, None]()
    loop.set_exception_handler(LoopErrors())
    async with await loop.create_server(lambda: _Connection(registry, open_ones), sock=listener):
        await stopping.wait()
        for connection in list(open_ones):
            connection.close()
        await asyncio.sleep(0)  # in which they end


class _Connection(asyncio.Protocol):
    """One request, one answer, and the end, all within `_CONNECTION_S`. Of too many connections the oldest goes."""

    def __init__(self, registry: CollectorRegistry, open_ones: "dict[_Connection, None]") -> None:
        self._registry = registry
        self._open = open_ones  # in the order in which they came
        self._http = h11.Connection(h11.SERVER, _MAX_HEAD_BYTES)
        self._is_answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(_CONNECTION_S, transport.abort)
        self._open[self] = None
        if len(self._open) > _MAX_CONNECTIONS:
            next(iter(self._open)).close()

    def connection_lost(self, error: Exception | None) -> None:
        self._timer.cancel()
        self._open.pop(self, None)

    def close(self) -> None:
        self._open.pop(self, None)
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._is_answered:  # read on, because closing over unread bytes could take the answer from the client
            return
        try:
            self._http.receive_data(data)
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            self._send(_error(error.error_status_hint), has_body=True)
            return
        if isinstance(event, h11.Request):
            self._send(_answer(event, self._registry), has_body=event.method != b"HEAD")

    def _send(self, answer: _Answer, has_body: bool) -> None:
        status, named, body = answer
        headers = [*named, ("Content-Length", str(len(body))), ("Connection", "close")]
        head = h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase)
        for event in (head, *([h11.Data(body)] if has_body else []), h11.EndOfMessage()):
            self._transport.write(self._http.send(event) or b"")
        self._is_answered = True
        if self._transport.can_write_eof():
            self._transport.write_eof()


def _answer(request: h11.Request, registry: CollectorRegistry) -> _Answer:
    headers = [(name.decode(), value.decode("latin-1")) for name, value in request.headers]
    accept, encoding = (",".join(v for n, v in headers if n == name) for name in ("accept", "accept-encoding"))
    try:
        target = urlsplit(request.target.decode())
        choose_encoder(accept)
    except (ValueError, TypeError):  # the second is prometheus_client's for a version that is no number
        return _error(400)
    if target.path != "/metrics":
        return _error(404)
    if request.method not in (b"GET", b"HEAD"):
        status, plain, body = _error(405)
        return status, [*plain, ("Allow", "GET, HEAD")], body
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": target.path, "QUERY_STRING": target.query}
    environ |= {"HTTP_ACCEPT": accept, "HTTP_ACCEPT_ENCODING": encoding}
    return _scraped(registry, environ)


def _scraped(registry: CollectorRegistry, environ: dict[str, str]) -> _Answer:
    head: list[Any] = []
    try:
        body = b"".join(make_wsgi_app(registry)(environ, lambda *arguments: head.extend(arguments)))
    except Exception:
        _log.exception("the metrics could not be collected")
        return _error(500)
    return 200, head[1], body


def _error(status: int) -> _Answer:
    return status, [("Content-Type", "text/plain; charset=utf-8")], f"{HTTPStatus(status).phrase}\n".encode()
