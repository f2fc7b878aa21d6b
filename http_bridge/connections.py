"""Bounds how many clients are connected, so that file descriptors are left for everything else.

Over the bound the connection that has been there longest without a running request makes room.
"""

import asyncio
import logging
from typing import Any

from http_bridge.protocol import BoundedProtocol
from observability.descriptors import MinuteLog

_log = logging.getLogger(__name__)


class Crowd:
    """The connections of one server, in the order in which they came."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: dict[CrowdedProtocol, None] = {}
        self._evictions = MinuteLog(_log)

    def admit(self, newcomer: "CrowdedProtocol") -> None:
        """Closes the newcomer itself only if every other connection is at work."""
        self._open[newcomer] = None
        if len(self._open) > self._limit:
            leaving = next((one for one in self._open if one.is_idle), newcomer)
            del self._open[leaving]
            leaving.transport.abort()
            said = "%d connections are open, which is the limit: idle ones are closed; RLIMIT_NOFILE bounds them"
            self._evictions.warning(said, self._limit)

    def forget(self, one: "CrowdedProtocol") -> None:
        self._open.pop(one, None)


class CrowdedProtocol(BoundedProtocol):
    """A connection that may have to make room for another."""

    def __init__(self, *arguments: Any, crowd: Crowd, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._crowd = crowd

    @property
    def is_idle(self) -> bool:
        """Whether no request is running and every byte of the last answer has gone."""
        is_answered = self.cycle is None or self.cycle.response_complete
        return is_answered and not self.transport.get_write_buffer_size()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._crowd.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.forget(self)
        super().connection_lost(exc)
