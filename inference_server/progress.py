"""How far the load is, for a person: a bar on a terminal, lines with percent in a log."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

_log = logging.getLogger(__name__)


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


class _LogLines:
    """A line for every tenth."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._said = -1

    def __call__(self, percent: int) -> None:
        tenth = percent // 10 * 10
        if tenth > self._said:
            self._said = tenth
            _log.info("%s: %d %%", self._what, tenth)
