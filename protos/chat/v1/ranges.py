"""The allowed ranges of the request's fields, said once for both transports.

The server refuses by them, the bridge also documents them in its OpenAPI schema. Comments in chat.proto repeat them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

MAX_NAME_CHARACTERS: Final = 256
MAX_STOP_TEXTS: Final = 4
MAX_STOP_CHARACTERS: Final = 1024
MAX_STOP_TOKEN_IDS: Final = 64
MAX_LOGIT_BIASES: Final = 1024
MAX_RESUMED_TOKEN_IDS: Final = 2**20  # above any context; the server's own narrows it


@dataclass(frozen=True, slots=True)
class Range:
    """Both ends belong to it. Ends of type int mean that the field is an integer."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high  # false for NaN

    def __str__(self) -> str:
        kind = "an integer" if isinstance(self.low, int) else "a number"
        return f"{kind} from {self.low} to {self.high}"


RANGES: Final[Mapping[str, Range]] = MappingProxyType(
    {
        "temperature": Range(0.0, 2.0),
        "top_p": Range(0.0, 1.0),
        "top_k": Range(-1, 2**31 - 1),
        "seed": Range(-(2**63), 2**63 - 1),
        "max_tokens": Range(1, 2**31 - 1),
        "min_p": Range(0.0, 1.0),
        "presence_penalty": Range(-2.0, 2.0),
        "frequency_penalty": Range(-2.0, 2.0),
        "repetition_penalty": Range(0.01, 2.0),
        "min_tokens": Range(0, 2**31 - 1),
        "top_logprobs": Range(0, 20),
    }
)

TOKEN_IDS: Final = Range(0, 2**31 - 1)  # the server's tokenizer narrows it

# What stands inside other fields; `[]` is any of a field's items.
INNER_RANGES: Final[Mapping[str, Range]] = MappingProxyType(
    {
        "logit_bias[]": Range(-100.0, 100.0),
        "stop_token_ids[]": TOKEN_IDS,
        "resume.token_ids[]": TOKEN_IDS,
        "resume.seed": RANGES["seed"],
    }
)
