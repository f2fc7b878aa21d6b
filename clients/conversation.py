"""The conversation that the client keeps: the service itself remembers nothing."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. An answer that was stopped is kept as far as it came."""

    role: Role
    content: str
    stopped: bool = False


class Conversation:
    """The turns so far, oldest first."""

    def __init__(self, system: str | None) -> None:
        self._system = [Turn("system", system)] if system else []
        self._turns: list[Turn] = []

    @property
    def turns(self) -> list[Turn]:
        return self._system + self._turns

    def with_question(self, question: str) -> list[Turn]:
        """What is to be sent. The question is kept only when its answer is added."""
        return [*self.turns, Turn("user", encodable(question))]

    def add(self, question: str, answer: str, stopped: bool) -> None:
        self._turns += [Turn("user", encodable(question)), Turn("assistant", answer, stopped)]

    def clear(self) -> None:
        """Forgets all but the instructions it began with."""
        self._turns = []


def encodable(text: str) -> str:
    """The text with a question mark for what no message can hold: bytes that were no UTF-8 come as lone surrogates."""
    return text.encode("utf-8", "replace").decode()
