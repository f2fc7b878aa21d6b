"""The words that the chat rooms share: messages, what is asked, what comes back."""

import enum
from dataclasses import dataclass


class Role(enum.StrEnum):
    """Who speaks in a turn; the value is the chat template's name for it."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str
    name: str | None = None  # of the speaker, for templates that show it


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A validated request; None means that the sender left the choice to the server."""

    model: str | None
    messages: tuple[Message, ...]
    temperature: float | None
    top_p: float | None
    top_k: int | None
    seed: int | None
    max_tokens: int | None
    stop: tuple[str, ...]
    ignore_eos: bool
    return_token_ids: bool
    min_p: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()  # by token id, ascending
    min_tokens: int = 0
    stop_token_ids: tuple[int, ...] = ()
    top_logprobs: int | None = None  # None: no log-probabilities at all
    resumed_token_ids: tuple[int, ...] = ()
