"""What the client needs of a chat service, whichever way leads there. It knows neither gRPC nor HTTP."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from clients.conversation import Turn

FinishReason = Literal["stop", "length"]


class ServiceError(Exception):
    """The service cannot be reached or refuses; the text is for the user."""


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """What goes with every question. None leaves the choice to the server."""

    model: str | None
    temperature: float | None
    top_p: float | None
    max_tokens: int | None
    seed: int | None


@dataclass(frozen=True, slots=True)
class ServedModel:
    """Which model answers. `load_percent` is None once it is ready; `facts` are short texts about it."""

    name: str
    load_percent: int | None
    notice: str
    facts: Sequence[str]


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    """What the server says at the end of an answer. `tokens_per_second` is 0 where there is one token only."""

    completion_tokens: int
    tokens_per_second: float
    time_to_first_token_ms: float
    finish_reason: FinishReason


class Transport(Protocol):
    """One way to the service. All methods raise ServiceError."""

    place: str  # where the service is and over what, for the user

    async def model(self) -> ServedModel:
        """Asks what is served. A server that will not answer chats any more is a ServiceError."""

    def answer(self, turns: Sequence[Turn]) -> AsyncGenerator[str | AnswerEnd]:
        """The answer's pieces of text, then its end. Closing the generator stops the server's work."""

    async def close(self) -> None:
        """Gives the connection back."""
