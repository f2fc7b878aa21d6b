"""The screen for pipes and files: answers go to stdout as they are, everything else to stderr."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from clients.conversation import Turn
from clients.screen import HELP, ending_line, one_line, opening_line
from clients.transports import AnswerEnd, ServedModel


class PlainScreen:
    """Writes no control sequences of its own."""

    def opened(self, model: ServedModel, place: str) -> None:
        self.note(opening_line(model, place))
        if model.notice:
            self.note(model.notice)

    @contextmanager
    def loading(self) -> Iterator[Callable[[int], None]]:
        self.note("waiting for the model, which is loading")
        yield lambda percent: None

    def typed(self, text: str, is_on_screen: bool) -> None:
        """Who wrote the pipe knows it."""

    @contextmanager
    def answer(self) -> Iterator[Callable[[str], None]]:
        try:
            yield _write
        finally:
            _write("\n")

    def ended(self, end: AnswerEnd) -> None:
        self.note(ending_line(end))

    def history(self, turns: Sequence[Turn]) -> None:
        for turn in turns:
            _write(f"{turn.role}: {turn.content}{' [stopped]' if turn.stopped else ''}\n")

    def help(self) -> None:
        self.note(HELP)

    def note(self, text: str) -> None:
        print(text, file=sys.stderr)

    def error(self, text: str) -> None:
        print(f"clients.chat: {one_line(text)}", file=sys.stderr)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
