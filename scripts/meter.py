"""One line about an installation while it goes on: rewritten on a terminal, lengthened in a log."""

import sys
import time
from pathlib import Path
from typing import Self

_FIRST_WORD_S = 5.0


class Meter:
    """Counts what lies below `downloads`."""

    def __init__(self, what: str, downloads: Path) -> None:
        self._what, self._downloads = what, downloads
        self._start_s = time.monotonic()
        self._next_word_s = _FIRST_WORD_S
        self._most_bytes = 0
        self._last_word = ""
        self._is_terminal = sys.stdout.isatty()

    def __enter__(self) -> Self:
        print(f"{self._what} ...", end="", flush=True)
        return self

    def tick(self, is_unpacking: bool) -> None:
        """Says how far it is, in a log the more seldom the longer it takes."""
        self._most_bytes = max(self._most_bytes, _bytes_below(self._downloads))
        if self._is_terminal:
            self._rewrite(f"{self._so_far()}{', unpacking' if is_unpacking else ''} ...")
        elif self._elapsed_s() >= self._next_word_s:
            self._next_word_s *= 2
            self._lengthen("unpacking" if is_unpacking else f"{self._most_bytes / 1e6:,.0f} MB")

    def __exit__(self, *error: object) -> None:
        if self._is_terminal:
            self._rewrite(self._so_far())
            print(flush=True)
        else:
            print(f" {self._so_far()}", flush=True)

    def _so_far(self) -> str:
        return f"{self._most_bytes / 1e6:,.0f} MB in {self._elapsed_s():.0f} s"

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._start_s

    def _lengthen(self, word: str) -> None:
        if word != self._last_word:
            print(f" {word} ...", end="", flush=True)
        self._last_word = word

    def _rewrite(self, words: str) -> None:
        print(f"\r\x1b[K{self._what}: {words}", end="", flush=True)


def _bytes_below(directory: Path) -> int:
    """Files may vanish while they are counted."""
    sizes = 0
    for path in directory.glob("pip-unpack-*/*"):  # not the copy on its way to the cache
        try:
            sizes += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return sizes
