"""The screen for people: colours, Markdown, an answer that grows. Can record itself as a picture."""

import re
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

from clients.conversation import Turn
from clients.live_answer import LiveAnswer
from clients.markdown import AnswerMarkdown
from clients.picture import Picture
from clients.screen import HELP, ending_line, one_line, opening_line
from clients.transports import AnswerEnd, ServedModel

PROMPT = "> "
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and newline


class TerminalScreen:
    """Draws on stdout's terminal and, where `picture_file` is given, a picture of it."""

    def __init__(self, picture_file: Path | None) -> None:
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._picture_file = picture_file
        self._picture = Picture()

    def save_picture(self, title: str) -> None:
        """Raises OSError."""
        if self._picture_file:
            self._picture_file.write_text(self._picture.svg(title), encoding="utf-8")

    def opened(self, model: ServedModel, place: str) -> None:
        self._show(Text(_visible(opening_line(model, place)), style="bold"))
        if model.notice:
            self._show(Text(_visible(model.notice), style="yellow"))
        self._show(Text("help shows the commands; Ctrl-C stops an answer, Ctrl-D ends.", style="dim"))

    @contextmanager
    def loading(self) -> Iterator[Callable[[int], None]]:
        columns = (TextColumn("the model is loading"), BarColumn(), TaskProgressColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task("", total=100)
            yield lambda percent: progress.update(task, completed=percent)

    def typed(self, text: str, is_on_screen: bool) -> None:
        shown = Text.assemble((PROMPT, "bold cyan"), _visible(text))
        self._picture.add("", shown)
        if not is_on_screen:
            self._console.print("", shown, sep="\n")

    @contextmanager
    def answer(self) -> Iterator[Callable[[str], None]]:
        texts: list[str] = []
        live = LiveAnswer(self._console)

        def add(text: str) -> None:
            texts.append(_visible(text))
            live.add(texts[-1])

        with _without_echo():
            live.start()
            try:
                yield add
            finally:
                live.finish()
                self._picture.add(AnswerMarkdown("".join(texts)))

    def ended(self, end: AnswerEnd) -> None:
        self.note(ending_line(end))

    def history(self, turns: Sequence[Turn]) -> None:
        for turn in turns:
            content = _visible(turn.content)
            self._show(Text.assemble((turn.role, "bold cyan"), (" stopped" if turn.stopped else "", "dim")))
            self._show(AnswerMarkdown(content) if turn.role == "assistant" else Text(content))

    def help(self) -> None:
        self._show(Text(HELP))

    def note(self, text: str) -> None:
        self._show(Text(_visible(text), style="dim"))

    def error(self, text: str) -> None:
        self._show(Text(_visible(one_line(text)), style="red"))

    def _show(self, shown: RenderableType) -> None:
        self._console.print(shown)
        self._picture.add(shown)


def _visible(text: str) -> str:
    """Without what would steer the terminal: a model may write any character."""
    return _CONTROL.sub("", text)


@contextmanager
def _without_echo() -> Iterator[None]:
    """Keys typed while an answer comes wait for the prompt and do not disturb the drawing. Ctrl-C works on."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    quiet = [*before[:3], before[3] & ~(termios.ECHO | termios.ICANON), *before[4:]]
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
