"""A response of server-sent events that is never silent for long: comments keep the connection open. Knows no chats."""

import asyncio
import time
from collections.abc import AsyncIterable
from typing import Final

from fastapi.responses import StreamingResponse
from starlette.types import Message, Send

COMMENT: Final = b": keep-alive\n\n"
_UNBUFFERED: Final = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class EventStream(StreamingResponse):
    """Sends status and headers at once, then the events, and a comment whenever `keepalive_s` pass without one.

    Source: the HTML standard, 9.2.7, recommends a comment every 15 s or so against proxies that drop idle connections.
    """

    def __init__(self, events: AsyncIterable[str], keepalive_s: float) -> None:
        """keepalive_s: 0 sends no comments."""
        super().__init__(events, media_type="text/event-stream", headers=_UNBUFFERED)
        self._keepalive_s = keepalive_s
        self._sent_s = 0.0
        self._is_sending = False

    async def stream_response(self, send: Send) -> None:
        async def send_on(message: Message) -> None:
            self._is_sending = True
            try:
                await send(message)
            finally:
                self._is_sending, self._sent_s = False, time.monotonic()

        commenting = asyncio.create_task(self._comment(send_on)) if self._keepalive_s else None
        try:
            await super().stream_response(send_on)
        finally:
            if commenting:
                commenting.cancel()

    async def _comment(self, send: Send) -> None:
        """A task beside the events costs them less than a timeout around each."""
        self._sent_s = time.monotonic()
        while True:
            left_s = self._sent_s + self._keepalive_s - time.monotonic()
            if left_s > 0:
                await asyncio.sleep(left_s)
            elif self._is_sending:  # the client reads nothing: a comment would only wait behind the event
                await asyncio.sleep(self._keepalive_s)
            else:
                await send({"type": "http.response.body", "body": COMMENT, "more_body": True})
