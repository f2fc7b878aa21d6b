"""The end of a program on request: the first SIGTERM or SIGINT drains it, a second one ends it at once.

Supervisors repeat a signal: one to the process group beside one to the process, or make's beside the terminal's.
"""

import signal
import time
from collections.abc import Callable
from types import FrameType

AT_ONCE_S = 0.25  # signals that come this soon after the first one are the same request
ENDING = (signal.SIGTERM, signal.SIGINT)


class EndSignals:
    """Calls `begin` for the first signal, and `hurry` for each that comes AT_ONCE_S after it or later."""

    def __init__(self, begin: Callable[[], None], hurry: Callable[[], None]) -> None:
        self._begin, self._hurry = begin, hurry
        self._first_s: float | None = None

    def install(self) -> None:
        """Until the process ends: an event loop's own handlers leave with it, and then a signal kills."""
        for number in ENDING:
            signal.signal(number, self.on_signal)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self._first_s is None:
            self._first_s = now_s
            self._begin()
        elif now_s - self._first_s >= AT_ONCE_S:
            self._hurry()
