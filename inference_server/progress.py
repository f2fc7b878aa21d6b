"""How far the load is, for a person: a bar on a terminal, lines with percent in a log."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

_log = logging.getLogger(__name__)
_LOG_EVERY_S = 2.0


class Show(Protocol):
    """Takes the percent done, 0 to 100."""

    def __call__(self, percent: int) -> None: ...


@contextmanager
def shown_progress(what: str) -> Iterator[Show]:
    """Shows the percents that it is given until the block ends."""
    if not sys.stderr.isatty():
        yield _LogLines(what)
        return
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=100)
        yield lambda percent: bar.update(task, completed=percent)


def restore_cursor() -> None:
    """For a process that ends without waiting for a bar that hides the terminal's cursor."""
    Console(stderr=True).show_cursor(True)


class _LogLines:
    """A line at most every two seconds, and one at the end."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._said_s = time.monotonic()

    def __call__(self, percent: int) -> None:
        now_s = time.monotonic()
        if percent == 100 or now_s - self._said_s >= _LOG_EVERY_S:
            self._said_s = now_s
            _log.info("%s: %d %%", self._what, percent)
