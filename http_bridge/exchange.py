"""One request and its answer, as far as they have got. Filled in on the way, told of at the end by accounting.py."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from starlette.types import Scope

CHAT_PATH: Final = "/v1/chat/completions"
NOBODY_READS_IT: Final = 499  # nginx's number for a client that closed the request


@dataclass(slots=True)
class Exchange:
    """What is known so far; None is not known."""

    request_id: str
    client: str = ""  # equal for all requests of one client
    began_s: float = field(default_factory=time.monotonic)
    status: int = NOBODY_READS_IT
    first_byte_s: float | None = None  # of a streamed answer: its first event, its headers go before
    streams: bool | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    ignored_fields: tuple[str, ...] = ()
    reason: str | None = None  # a finish reason, or an error's code
    at_end: list[Callable[[], None]] = field(default_factory=list)

    def note_first_event(self) -> None:
        """To be called when the first event of a streamed answer is there."""
        if self.first_byte_s is None:
            self.first_byte_s = self.elapsed_s

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.began_s


def exchange_of(scope: Scope) -> Exchange:
    """The one that Accounting put there."""
    exchange: Exchange = scope["state"]["exchange"]
    return exchange
