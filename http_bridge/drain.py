"""The bridge's end: no new chats, running ones may go on for a while, what is left then is told so."""

import contextlib
import time
from collections.abc import Iterator
from typing import Protocol

from http_bridge.errors import ApiError


class _Call(Protocol):
    def cancel(self) -> bool: ...


class Drain:
    """Who still runs. `is_over` ends the running gRPC calls, and with them the answers that wait for them."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._began_s: float | None = None
        self._chat_count = 0
        self._calls: set[_Call] = set()
        self.is_over = False

    @property
    def is_draining(self) -> bool:
        return self._began_s is not None

    @property
    def chat_count(self) -> int:
        """Chats that were accepted and whose answers are not all sent."""
        return self._chat_count

    @property
    def is_busy(self) -> bool:
        return bool(self._chat_count or self._calls)

    @property
    def lasts_s(self) -> float:
        """Since the drain began."""
        return 0.0 if self._began_s is None else time.monotonic() - self._began_s

    @property
    def left_s(self) -> float:
        """Until the running answers are ended; below 0 after that."""
        return self._timeout_s - self.lasts_s

    def begin(self) -> None:
        self._began_s = time.monotonic()

    def end(self) -> None:
        """Ends every running call; `ended_by_drain` tells those who wait for one."""
        self.is_over = True
        for call in list(self._calls):
            call.cancel()

    def accept_chat(self) -> None:
        """Counts a chat. Raises ApiError where no new one is taken."""
        if self.is_draining:
            raise ended_by_drain()
        self._chat_count += 1

    def chat_ended(self) -> None:
        self._chat_count -= 1

    @contextlib.contextmanager
    def running(self, call: _Call) -> Iterator[None]:
        """Cancels the call when the drain is over, and in any case after the block: gRPC would let it run on."""
        if self.is_over:
            call.cancel()
        self._calls.add(call)
        try:
            yield
        finally:
            self._calls.discard(call)
            call.cancel()


def ended_by_drain() -> ApiError:
    """For new chats, and for those that were not done in time."""
    return ApiError(503, "the bridge is draining", code="unavailable", headers={"Retry-After": "2"})
