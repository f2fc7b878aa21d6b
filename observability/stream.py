"""A text stream whose writers never wait for its reader: a thread writes; text beyond a bound is dropped and counted.

The programs put one in the place of `sys.stderr`, so that log lines, warnings and tracebacks of threads all take it.
"""

import atexit
import io
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Literal, NoReturn

MAX_HELD_BYTES = 256 * 1024  # some 1,200 lines of chats
_EXIT_PATIENCE_S = 1.0


class NonBlockingStream(io.TextIOBase):
    """Line-buffered writes to a descriptor that may be a pipe, a terminal or a file.

    Each `write` of whole lines reaches the descriptor with a write of its own, in order.
    """

    def __init__(self, descriptor: int, max_held_bytes: int = MAX_HELD_BYTES) -> None:
        self.dropped_count = 0
        self.notice: Callable[[int], str] = "{} lines were dropped, because the reader of the log was too slow\n".format
        self._descriptor = descriptor
        self._max_held_bytes = max_held_bytes
        self._held: deque[bytes] = deque()  # the first one is being written
        self._held_bytes = 0
        self._unreported_count = 0
        self._is_failing = False  # the reader has gone, or the disk is full
        self._line = ""  # what has come of a line that is not complete
        self._changed = threading.Condition()  # reentrant: a signal's handler or a finalizer may write too
        threading.Thread(target=self._run, name="stderr", daemon=True).start()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Never waits. A write with several lines, such as a traceback, is kept or dropped as a whole."""
        with self._changed:
            whole, end, rest = (self._line + text).rpartition("\n")
            self._line = rest
            if end:
                self._hold(whole + end)
        return len(text)

    def flush(self) -> None:
        """Sends an incomplete line too. Does not wait: that is `drain`."""
        with self._changed:
            text, self._line = self._line, ""
            if text:
                self._hold(text)

    def drain(self, timeout_s: float) -> bool:
        """Waits until everything is written; gives up after `timeout_s`. Returns whether it is."""
        self.flush()
        with self._changed:
            return self._changed.wait_for(lambda: not self._held, timeout_s)

    def _hold(self, text: str) -> None:
        piece = text.encode(self.encoding, self.errors)
        if self._held_bytes + len(piece) > self._max_held_bytes:
            self._drop()
            return
        self._report_drops()
        self._append(piece)

    def _append(self, piece: bytes) -> None:
        self._held.append(piece)
        self._held_bytes += len(piece)
        self._changed.notify_all()

    def _drop(self) -> None:
        self.dropped_count += 1
        self._unreported_count += 1

    def _report_drops(self) -> None:
        """Puts one line where the dropped ones are missing."""
        if (count := self._unreported_count) and not self._is_failing:
            self._unreported_count = 0
            self._append(self.notice(count).encode(self.encoding, self.errors))

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._held)
                piece = self._held[0]
            is_written = self._write_all(piece)
            with self._changed:
                self._held.popleft()
                self._held_bytes -= len(piece)
                self._is_failing = not is_written
                if not is_written:
                    self._drop()
                elif not self._held:
                    self._report_drops()
                self._changed.notify_all()

    def _write_all(self, piece: bytes) -> bool:
        while piece:
            try:
                piece = piece[os.write(self._descriptor, piece) :]
            except BlockingIOError:  # the pipe's other end has made it non-blocking, for both
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
            except OSError:
                return False
        return True


def unblock(name: Literal["stdout", "stderr"] = "stderr") -> None:
    """Replace the standard stream for the rest of the process. At its end what is held has a second to be written."""
    before = getattr(sys, name)
    if before is None:  # the program was started without one
        return
    before.flush()
    stream = NonBlockingStream(before.fileno())
    setattr(sys, name, stream)
    atexit.register(stream.drain, _EXIT_PATIENCE_S)


def leave(exit_code: int, patience_s: float = _EXIT_PATIENCE_S) -> NoReturn:
    """End the process at once, whatever its threads do, after `patience_s` at most for held lines."""
    if isinstance(sys.stderr, NonBlockingStream):
        sys.stderr.drain(patience_s)
    os._exit(exit_code)


def dropped_line_count() -> int:
    """Return how many writes to `sys.stderr` were dropped."""
    count: int = getattr(sys.stderr, "dropped_count", 0)
    return count
