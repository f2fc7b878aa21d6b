"""Shows how far the training is: a bar in a terminal, a line every five percent elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


class TrainingProgress:
    """A context in which `show` may be called after every step."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._console = Console()
        loss = TextColumn("loss {task.fields[loss]:.4f}")
        self._bar = Progress(
            TextColumn("training"), BarColumn(), TaskProgressColumn(), loss, TimeRemainingColumn(),
            console=self._console, disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("training", total=total, loss=float("nan"))
        self._started_s = time.monotonic()
        self._next_line = 0.05

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, done: int, loss: float) -> None:
        """Takes the number of conversations done and the loss of late."""
        self._bar.update(self._task, completed=done, loss=loss)
        share = done / self._total
        if self._console.is_terminal or share < self._next_line:
            return
        self._next_line = share + 0.05
        left_s = (time.monotonic() - self._started_s) * (1 - share) / share
        print(f"training {share:4.0%}, loss {loss:.4f}, {left_s:.0f} s left", flush=True)
