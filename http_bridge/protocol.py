"""HTTP/1.1 with what uvicorn leaves open: how large a request's head may be, and how long a request may take to arrive.

One object a connection. Knows nothing of routes; an error that is found here is OpenAI's body all the same.
"""

import asyncio
import contextlib
from http import HTTPStatus
from typing import Any

import h11
from fastapi.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from http_bridge.errors import ApiError
from http_bridge.wire import HEAD_TOO_LARGE, StrictConnection

_READ_BYTES = 16 * 1024  # at once: asyncio's own 256 KiB may be 40,000 chunks of a body, which take h11 0.8 s
_BACKSTOP_S = 1.0  # a late body is the application's to answer; this is for those that nobody reads
# A socket closed over unread bytes is reset, and the client may never see why. So a little more is read.
_LINGER_S = 1.0
_LINGER_BYTES = 2**20
_WORDS = {
    400: "not a valid HTTP/1.1 request",
    408: "the request's headers took too long to arrive",
    431: HEAD_TOO_LARGE,
    501: "Transfer-Encoding: only chunked is supported",
}


class BoundedProtocol(H11Protocol):
    """Gives a head `read_timeout_s` from the connection's start, or from its first byte where the connection was kept.

    The body has as long from the end of the head. Bytes that trickle in move neither end.
    """

    conn: StrictConnection

    def __init__(self, *arguments: Any, read_timeout_s: float, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn = StrictConnection()
        self._read_timeout_s = read_timeout_s
        self._reading: object = None  # what is arriving: nothing, or a request's head or body
        self._timer: asyncio.TimerHandle | None = None
        self._lingering_bytes: int | None = None  # how many more a refused client may send

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.max_size = _READ_BYTES  # type: ignore[attr-defined]  # of asyncio's transports for sockets
        self._expect((None, h11.IDLE))

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._lingering_bytes is None:
            super().data_received(data)
            return
        self._lingering_bytes -= len(data)
        if self._lingering_bytes < 0:
            self.transport.abort()

    def handle_events(self) -> None:
        super().handle_events()
        if self._lingering_bytes is not None:
            return
        state = self.conn.their_state
        arriving = state is h11.SEND_BODY or (state is h11.IDLE and bool(self.conn.trailing_data[0]))
        self._expect((self.cycle, state) if arriving else None)

    def _expect(self, reading: object) -> None:
        """Times what is arriving; goes on timing where that is the same as before."""
        if reading == self._reading:
            return
        self._reading = reading
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if reading:
            in_body = self.conn.their_state is h11.SEND_BODY
            allowed_s = self._read_timeout_s + (_BACKSTOP_S if in_body else 0.0)
            self._timer = self.loop.call_later(allowed_s, self._end_slow_request)

    def _end_slow_request(self) -> None:
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._refuse(408)
        else:  # nothing was asked, or it was answered long ago
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls where h11 refuses."""
        self._refuse(self.conn.refused_with)

    def _refuse(self, status: int) -> None:
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # an answer is already on its way
            self.transport.close()
            return
        if self.cycle and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        words = self.conn.refusal or _WORDS.get(status, _WORDS[400])
        body = JSONResponse(ApiError(status, words).body())
        reason = HTTPStatus(status).phrase.encode()
        headers = [*body.raw_headers, (b"connection", b"close")]
        content = b"" if self.conn.is_head_request else bytes(body.body)
        for event in (h11.Response(status_code=status, headers=headers, reason=reason), h11.Data(content)):
            self.transport.write(self.conn.send(event) or b"")
        self.conn.send(h11.EndOfMessage())
        self._linger()

    def _linger(self) -> None:
        self._lingering_bytes = _LINGER_BYTES
        self._expect(None)
        self._timer = self.loop.call_later(_LINGER_S, self.transport.abort)
        self.flow.resume_reading()
        with contextlib.suppress(OSError):  # the client may have reset the connection by now
            self.transport.write_eof()

    def _should_upgrade(self) -> bool:
        """Never, and without the two warnings that uvicorn would log for each request."""
        return False
