"""The words that the engine's rooms share."""

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it takes a second to import, and not all who read these words need it
    import torch


class FinishReason(enum.Enum):
    """Why a sequence ended."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the tokens of one sequence are chosen, every default resolved.

    temperature: 0 is greedy. top_k: 0 keeps all. max_tokens: at least 1. min_tokens: no stop id comes before so many.
    logit_bias: (token id, what is added to its logit). stop_token_ids: beside the model's own, with ignore_eos too.
    top_logprobs: how many likely tokens are told with each token's own log-probability; None tells neither.
    """

    temperature: float
    top_p: float
    top_k: int
    seed: int
    max_tokens: int
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    min_tokens: int = 0
    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    top_logprobs: int | None = None


NO_SAMPLING = SamplingParams(temperature=0.0, top_p=1.0, top_k=0, seed=0, max_tokens=1)  # for probes


@dataclass(eq=False, slots=True, weakref_slot=True)
class Sequence:
    """One answer in the making. The engine thread alone changes it."""

    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    token_ids: list[int] = field(default_factory=list)  # of the answer; resumed ones are there from the start
    client: str = ""  # who asked; clients have fair turns
    computed_count: int = 0  # of prompt and answer tokens, how many the cache holds
    cached_count: int = 0  # of the prompt's tokens, how many were in the cache when it was first scheduled
    started_s: float | None = None  # time.perf_counter() at the first step
    block_ids: list[int] = field(default_factory=list)  # cache blocks it holds, in the order of its tokens
    block_digests: list[bytes] = field(default_factory=list)  # of its full blocks, as far as they were asked for

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
class Chunk:
    """The tokens that one sequence computes in one step: `count` of them from place `start` on."""

    sequence: Sequence
    start: int
    count: int

    @property
    def samples(self) -> bool:
        """Whether a token follows; else there are more known ones to compute."""
        return self.start + self.count == self.sequence.length


@dataclass(frozen=True, slots=True)
class Computed:
    """What follows the last token of each of a step's chunks; valid until the next step."""

    likeliest: list[int | None]  # [C], the first of known tokens' largest logits; None where they are not all finite
    logits: "torch.Tensor"  # [C, V]; where they were not to be kept, [0, V] or as well

    def of(self, chunks: list[int]) -> "Computed":
        """What follows some of the chunks, in ascending order."""
        if len(chunks) == len(self.likeliest):
            return self
        logits = self.logits[chunks] if len(self.logits) else self.logits
        return Computed([self.likeliest[chunk] for chunk in chunks], logits)


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The model's raw log-softmax: of the token, and of the likeliest ones as (token id, logprob), likeliest first."""

    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class SampledToken:
    """What the sampler picked for one row."""

    token_id: int
    logprobs: TokenLogprobs | None = None


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One generated token. Times are time.perf_counter() seconds."""

    token_id: int
    finish_reason: FinishReason | None
    started_s: float  # when the sequence's first step began
    sampled_s: float
    logprobs: TokenLogprobs | None = None
    cached_count: int = 0  # of the prompt's tokens, how many came from the cache


@dataclass(slots=True)
class Counts:
    """Sequences since the start: `started` is the sum of the next three and of those that are here now."""

    started: int = 0
    finished: int = 0
    cancelled: int = 0
    failed: int = 0
    preempted: int = 0  # times that a sequence had to give its blocks back
    prompt_tokens: int = 0
    generated_tokens: int = 0


@dataclass(frozen=True, slots=True)
class CacheUse:
    """Blocks now, and prompt tokens so far. Those of `cached_blocks` are free for others but still known."""

    total_blocks: int
    used_blocks: int
    cached_blocks: int
    block_size: int
    queried_tokens: int
    hit_tokens: int


@dataclass(frozen=True, slots=True)
class EngineUse:
    """What the engine is doing, and has done since its start."""

    running_count: int
    waiting_count: int
    waiting_tokens: int
    counts: Counts
    cache: CacheUse
