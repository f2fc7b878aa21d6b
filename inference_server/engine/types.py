"""The words that the engine's rooms share."""

import enum
from dataclasses import dataclass, field


class FinishReason(enum.Enum):
    """Why a sequence ended."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the tokens of one sequence are chosen, every default resolved.

    temperature: 0 is greedy. top_k: 0 keeps all. max_tokens: at least 1.
    """

    temperature: float
    top_p: float
    top_k: int
    seed: int
    max_tokens: int
    ignore_eos: bool = False


@dataclass(eq=False, slots=True)
class Sequence:
    """One answer in the making. The engine thread alone changes it."""

    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    token_ids: list[int] = field(default_factory=list)
    computed_count: int = 0  # of prompt and answer tokens, how many the cache holds
    started_s: float | None = None  # time.perf_counter() at the first step

    @property
    def length(self) -> int:
        """Tokens of prompt and answer so far."""
        return len(self.prompt_token_ids) + len(self.token_ids)

    def tokens_from(self, start: int, most: int) -> list[int]:
        """At most `most` of the prompt's and the answer's tokens, from place `start` on."""
        prompt = self.prompt_token_ids[start : start + most]
        begin = max(start - len(self.prompt_token_ids), 0)
        return [*prompt, *self.token_ids[begin : begin + most - len(prompt)]]


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One generated token. Times are time.perf_counter() seconds."""

    token_id: int
    finish_reason: FinishReason | None
    started_s: float  # when the sequence's first step began
    sampled_s: float
