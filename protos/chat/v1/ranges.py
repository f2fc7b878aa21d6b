"""The allowed ranges of the request's fields, said once for both transports.

The server refuses by them, the bridge also documents them in its OpenAPI schema. Comments in chat.proto repeat them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

MAX_STOP_TEXTS: Final = 4
MAX_STOP_CHARACTERS: Final = 1024


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
    }
)
