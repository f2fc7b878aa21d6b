"""What the engine has made and its callers have not read yet. Lives on the event loop.

A message costs this process and the bridge some 90 to 150 microseconds each, whatever is in it. Where many sequences
run, tokens of one answer wait a little to share a message, so that messages take each of the two a tenth of a
processor at most (up to some 65 streams) and leave the rest to the engine. The first token of an answer never waits,
nor do its last ones, nor those of a sequence that runs alone.
"""

import asyncio
from collections.abc import Callable

from inference_server.engine.types import TokenEvent

# With 20 logprobs a token some 20 kB in a message: a client that reads 4 kB/s has read it within the write timeout.
_MOST_TAKEN = 32
# A sequence whose caller reads nothing is parked at so many events, and goes on when there are half as many.
_MOST_UNREAD = 256
_PAUSE_A_SEQUENCE_S = 0.0015


class Mail:
    """The events of one sequence."""

    def __init__(self, park: Callable[[bool], None]) -> None:
        """park: told whether the sequence shall rest, when that changes."""
        self._park = park
        self._is_parked = False
        self._events: list[TokenEvent] = []
        self._arrived = asyncio.Event()
        self._error: Exception | None = None
        self._due_s = 0.0  # on the loop's clock, when what has arrived is to be read
        self._alarm: asyncio.TimerHandle | None = None

    def put(self, event: TokenEvent | Exception) -> None:
        """Adds an event, or the error that ends the sequence."""
        if isinstance(event, TokenEvent):
            self._events.append(event)
            is_last = event.finish_reason is not None
            if len(self._events) >= _MOST_UNREAD and not self._is_parked and not is_last:
                self._is_parked = True
                self._park(True)
        else:
            self._error, is_last = event, True
        if is_last:
            self._wake()
        elif not self._arrived.is_set() and not self._alarm:
            loop = asyncio.get_running_loop()
            if self._due_s <= loop.time():
                self._wake()
            else:
                self._alarm = loop.call_at(self._due_s, self._wake)

    async def take(self, pause_s: float) -> list[TokenEvent]:
        """What has arrived, 1 to 32 events; raises the error that ended the sequence when all before it is read.

        pause_s: what comes next may wait for so long, unless it is the last.
        """
        await self._arrived.wait()
        if not self._events and self._error:
            raise self._error
        events, self._events = self._events[:_MOST_TAKEN], self._events[_MOST_TAKEN:]
        if self._is_parked and len(self._events) <= _MOST_UNREAD // 2:
            self._is_parked = False
            self._park(False)
        if not self._events and not self._error:
            self._arrived.clear()
            self._due_s = asyncio.get_running_loop().time() + pause_s
        return events

    def close(self) -> None:
        """Nobody reads any more."""
        if self._alarm:
            self._alarm.cancel()

    def _wake(self) -> None:
        self.close()
        self._alarm = None
        self._arrived.set()


def pause_s(sequences: int, longest_s: float) -> float:
    """How long tokens may wait for others of their answer, in seconds, while so many sequences run."""
    return min(max(sequences - 1, 0) * _PAUSE_A_SEQUENCE_S, longest_s)
