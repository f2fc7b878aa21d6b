"""How far the download is: a bar by bytes on a terminal, lines with percent in a log."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import TransferSpeedColumn as SpeedColumn

from inference_server.progress import Show, shown_progress


class ByteProgress(Protocol):
    """Told what is done and of the bytes that arrive; fewer than none where some have to come again."""

    def says(self, what: str) -> None: ...

    def advance(self, byte_count: int) -> None: ...


@contextmanager
def shown_bytes(total_bytes: int, there_bytes: int) -> Iterator[ByteProgress]:
    """Shows what it is told until the block ends."""
    if not sys.stderr.isatty():
        with shown_progress("downloading") as show:
            yield _Percent(total_bytes, there_bytes, show)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        SpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield _Bar(bar, bar.add_task("downloading", total=total_bytes, completed=there_bytes))


class _Bar:
    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def says(self, what: str) -> None:
        self._bar.update(self._task, description=what)

    def advance(self, byte_count: int) -> None:
        self._bar.advance(self._task, byte_count)


class _Percent:
    """Says each percent once: hours of a slow line should not fill a log."""

    def __init__(self, total_bytes: int, there_bytes: int, show: Show) -> None:
        self._total_bytes, self._there_bytes, self._show = total_bytes, there_bytes, show
        self._said_percent = 100 * there_bytes // max(total_bytes, 1)

    def says(self, what: str) -> None:
        pass

    def advance(self, byte_count: int) -> None:
        self._there_bytes += byte_count
        percent = 100 * self._there_bytes // max(self._total_bytes, 1)
        if percent > self._said_percent:
            self._said_percent = percent
            self._show(percent)
