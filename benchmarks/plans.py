"""What is measured of each shape: few enough requests for minutes on two cores."""

from dataclasses import dataclass

from benchmarks.conversation import answer_count
from benchmarks.load import Load


@dataclass(frozen=True, slots=True)
class Plan:
    """Loads, and lengths of conversations in words."""

    loads: tuple[Load, ...]
    conversation_words: tuple[int, ...]
    conversation_tokens: int  # of each answer

    @property
    def answer_count(self) -> int:
        return sum(load.requests for load in self.loads) + answer_count() * len(self.conversation_words)


_LONG = Plan(
    loads=(Load(1, 2, 200, 64), Load(4, 8, 200, 64), Load(16, 16, 200, 64)),
    conversation_words=(200, 1000, 4000),
    conversation_tokens=24,
)
PLANS = {
    "tiny": Plan(
        loads=(Load(1, 8, 10, 64), Load(4, 32, 10, 64), Load(16, 64, 10, 64), Load(64, 256, 10, 64)),
        conversation_words=(200, 1000, 4000),
        conversation_tokens=24,
    ),
    "0.6b": _LONG,
    "1.7b": _LONG,
    "4b": _LONG,
}
