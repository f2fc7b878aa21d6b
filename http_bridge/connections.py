"""Bounds how many clients are connected, and for how long they may read nothing.

Over the bound the connection that has been there longest without a running request makes room, so that file descriptors
are left for everything else.
"""

import asyncio
import logging
from typing import Any

from http_bridge.protocol import BoundedProtocol
from observability.descriptors import MinuteLog

_log = logging.getLogger(__name__)


class Crowd:
    """The connections of one server, in the order in which they came."""

    def __init__(self, limit: int, write_timeout_s: float) -> None:
        """write_timeout_s: how long a client may take nothing of what is written for it."""
        self._limit = limit
        self._write_timeout_s = write_timeout_s
        self._open: dict[CrowdedProtocol, None] = {}
        self._evictions, self._stalls = MinuteLog(_log), MinuteLog(_log)

    def admit(self, newcomer: "CrowdedProtocol") -> None:
        """Closes the newcomer itself only if every other connection is at work."""
        self._open[newcomer] = None
        if len(self._open) > self._limit:
            leaving = next((one for one in self._open if one.is_idle), newcomer)
            del self._open[leaving]
            leaving.transport.abort()
            said = "%d connections are open, which is the limit: idle ones are closed; RLIMIT_NOFILE bounds them"
            self._evictions.warning(said, self._limit)

    def close_stalled(self, now_s: float) -> None:
        """To be called about once a second."""
        for one in [one for one in self._open if one.stalled_s(now_s) >= self._write_timeout_s]:
            one.transport.abort()
            self._stalls.warning("a client has read nothing for %d s: it is disconnected", self._write_timeout_s)

    def forget(self, one: "CrowdedProtocol") -> None:
        self._open.pop(one, None)


class _CountedTransport:
    """A transport that counts what is written to it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._written = 0

    @property
    def taken(self) -> int:
        """Bytes that the system has taken, which it does as the client reads."""
        return self._written - self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        self._written += len(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class CrowdedProtocol(BoundedProtocol):
    """A connection that may have to make room for another."""

    def __init__(self, *arguments: Any, crowd: Crowd, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._crowd = crowd
        self._taken, self._taken_s = 0, 0.0  # bytes, and when they were more than before

    @property
    def is_idle(self) -> bool:
        """Whether no request is running and every byte of the last answer has gone."""
        is_answered = self.cycle is None or self.cycle.response_complete
        return is_answered and not self.transport.get_write_buffer_size()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport: Any = _CountedTransport(transport)
        self._crowd.admit(self)

    def stalled_s(self, now_s: float) -> float:
        """For how long the client has read nothing of what waits for it, as far as it was asked."""
        if not self.transport.get_write_buffer_size() or self.transport.taken > self._taken:
            self._taken, self._taken_s = self.transport.taken, now_s
        return now_s - self._taken_s

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.forget(self)
        super().connection_lost(exc)
