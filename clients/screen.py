"""What the client shows, whatever it is shown on."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from clients.conversation import Turn
from clients.transports import AnswerEnd, ServedModel

HELP = """\
history   shows the conversation
clear     forgets the conversation
help      shows this
quit      ends, as do exit, q and Ctrl-D

Each may have a slash before it.
Ctrl-C stops an answer, or clears what is typed.
Alt-Enter or a backslash at the end adds a line to the message."""


class Screen(Protocol):
    """All texts are shown as they are: no markup in them has a meaning."""

    def opened(self, model: ServedModel, place: str) -> None:
        """Says who answers, and where."""

    def loading(self) -> AbstractContextManager[Callable[[int], None]]:
        """Shows how far the model is; takes percents."""

    def typed(self, text: str, is_on_screen: bool) -> None:
        """Shows a message or a command, where the typing has not shown it."""

    def answer(self) -> AbstractContextManager[Callable[[str], None]]:
        """Shows an answer; takes its pieces."""

    def ended(self, end: AnswerEnd) -> None:
        """Says how the answer went."""

    def history(self, turns: Sequence[Turn]) -> None:
        """Shows the conversation."""

    def help(self) -> None:
        """Shows the commands."""

    def note(self, text: str) -> None:
        """Says something beside the conversation."""

    def error(self, text: str) -> None:
        """Says what failed, in one line."""


def opening_line(model: ServedModel, place: str) -> str:
    facts = f" ({', '.join(model.facts)})" if model.facts else ""
    return f"{model.name} answers at {place}{facts}"


def ending_line(end: AnswerEnd) -> str:
    parts = [f"{end.completion_tokens} {'token' if end.completion_tokens == 1 else 'tokens'}"]
    if end.tokens_per_second:
        parts.append(f"{end.tokens_per_second:.1f} tokens/s")
    parts.append(f"first token after {end.time_to_first_token_ms:,.0f} ms")
    if end.finish_reason == "length":
        parts.append("cut off by the token limit (length)")
    return " · ".join(parts)


def one_line(text: str) -> str:
    return " ".join(text.split())
