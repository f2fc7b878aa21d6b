"""Counts the values of a JSON text before it is parsed, because json.loads holds the event loop until it has them all.

strict_request.py calls it. Knows no JSON but strings, commas and brackets.
"""

import asyncio
from typing import Final

MAX_VALUES: Final = 2**16  # at most 70 ms for the longest step on them: to validate messages of no text
_SLICE_BYTES: Final = 64 * 1024  # at most 4 ms each


async def has_too_many_values(body: bytes) -> bool:
    """Whether a JSON text has more than MAX_VALUES values. An empty list or object counts as two.

    Each value but the first stands behind a comma or opens its list or object. What is no JSON is counted up to the
    place that the parser refuses. Gives way to other tasks after each slice.
    """
    if marks(body) < MAX_VALUES:  # those in strings included
        return False
    counter = _Counter()
    for start in range(0, len(body), _SLICE_BYTES):
        counter.add(body[start : start + _SLICE_BYTES])
        if counter.marks >= MAX_VALUES:
            return True
        await asyncio.sleep(0)
    return False


def marks(text: bytes) -> int:
    """How many commas and opening brackets it has."""
    return text.count(b",") + text.count(b"[") + text.count(b"{")


class _Counter:
    """The marks outside of strings. Slices may end inside a string or an escape."""

    def __init__(self) -> None:
        self.marks = 0
        self._in_string = False
        self._held = b""  # a backslash whose escape goes on in the next slice

    def add(self, piece: bytes) -> None:
        piece = self._held + piece
        backslashes = len(piece) - len(piece.rstrip(b"\\"))
        self._held = b"\\" if backslashes % 2 else b""
        piece = piece[: len(piece) - len(self._held)]
        parts = piece.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        self.marks += marks(b"".join(parts[self._in_string :: 2]))
        self._in_string ^= len(parts) % 2 == 0
