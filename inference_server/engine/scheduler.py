"""Who runs in a step, and with how many tokens. Called by the engine's thread; knows no tensors.

There are no phases: each sequence has a count of computed tokens that catches up with its tokens. Decode tokens go
first, prompts take what the step's budget leaves. When blocks run out, the youngest sequence gives its own back and is
computed again later; so does the youngest of a client that has two more running than the one whose turn it is.
"""

import time
from collections import Counter
from dataclasses import dataclass

from inference_server.engine.kv_cache import KVCache
from inference_server.engine.types import Chunk, Counts, FinishReason, SampledToken, Sequence, TokenEvent
from inference_server.engine.waiting import WaitingLines

# However many sequences decode, prompts get at least this share of the budget.
_PROMPT_SHARE = 4


@dataclass(frozen=True, slots=True)
class StepBudget:
    """How many tokens one step takes.

    tokens: decode tokens included. per_stream: so many more for each sequence that decodes, whose steps take longer
    anyway where each token has its price. alone: for a step that no answer waits for, if it is more.
    """

    tokens: int
    per_stream: int = 0
    alone: int = 0

    def for_prompts(self, decoding: int) -> int:
        """What is left for prompts beside so many decode tokens."""
        if not decoding:
            return max(self.tokens, self.alone)
        tokens = self.tokens + self.per_stream * decoding
        return max(tokens - decoding, tokens // _PROMPT_SHARE)


class Scheduler:
    """Holds every sequence from its arrival to its end."""

    def __init__(self, cache: KVCache, stop_token_ids: frozenset[int], max_sequences: int, budget: StepBudget) -> None:
        """max_sequences: that run at once."""
        self.counts = Counts()
        self.cache = cache
        self.stop_token_ids = stop_token_ids
        self.max_sequences = max_sequences
        self._budget = budget
        self._waiting = WaitingLines()
        self._running: list[Sequence] = []  # by the time at which they last began, oldest first
        self._parked: set[Sequence] = set()
        self._running_of: Counter[str] = Counter()  # by client

    @property
    def running_count(self) -> int:
        """Sequences that hold blocks."""
        return len(self._running)

    @property
    def waiting_count(self) -> int:
        """Sequences that hold none and wait for some."""
        return len(self._waiting)

    @property
    def parked_count(self) -> int:
        """Sequences whose callers read nothing. They hold no blocks."""
        return len(self._parked)

    @property
    def waiting_tokens(self) -> int:
        """Tokens of prompts and answers of the sequences that hold no blocks."""
        return self._waiting.tokens

    def add(self, sequence: Sequence) -> None:
        """Takes a sequence in. With max_tokens of answer it must fit into the cache when it is alone."""
        self._waiting.add(sequence)
        self.counts.started += 1

    def cancel(self, sequence: Sequence) -> None:
        """Drops a sequence that nobody waits for; harmless where it has ended."""
        if self._drop(sequence):
            self.counts.cancelled += 1

    def park(self, sequence: Sequence) -> None:
        """Lets a sequence rest that has more tokens than its caller reads; harmless where it has ended."""
        if self._drop(sequence):
            self._parked.add(sequence)

    def unpark(self, sequence: Sequence) -> None:
        """Its next turn comes as soon as may be; what the cache has forgotten of it is computed again."""
        if sequence in self._parked:
            self._parked.remove(sequence)
            self._waiting.put_back(sequence)

    def distrust(self, sequence: Sequence) -> list[int]:
        """What the sequence has computed must not be used again. Returns the blocks that it alone holds."""
        return self.cache.forget(sequence)

    def fail(self, sequence: Sequence) -> None:
        """Drops a sequence that cannot go on."""
        if self._drop(sequence):
            self.counts.failed += 1

    def schedule(self) -> list[Chunk]:
        """The next step: decode tokens, then prompts of running sequences, then new ones. Empty: nothing to do."""
        self._make_fair_room()
        chunks = self._decode_chunks()
        budget = self._budget.for_prompts(len(chunks))
        for sequence in self._running:
            if budget and sequence.length - sequence.computed_count > 1:
                chunks.append(_chunk(sequence, budget))
                budget -= chunks[-1].count
        while budget and len(self._running) < self.max_sequences:
            following = self._waiting.next(self._running_of)
            if not following or not self.cache.admit(following, spare_count=len(self._running)):
                break
            self._waiting.take(following)
            self._running.append(following)
            self._running_of[following.client] += 1
            self._note_start(following)
            chunks.append(_chunk(following, budget))
            budget -= chunks[-1].count
        return chunks

    def advance(self, chunk: Chunk, token: SampledToken | None) -> TokenEvent | None:
        """Counts what a step has computed, and takes the token that was sampled from it, if one was.

        A sequence that has ended frees its blocks here.
        """
        sequence = chunk.sequence
        self.cache.advance(sequence, chunk.start + chunk.count)
        if token is None:
            return None
        sequence.token_ids.append(token.token_id)
        self.counts.generated_tokens += 1
        finish_reason = self._finish_reason(sequence)
        if finish_reason:
            self._drop(sequence)
            self.counts.finished += 1
        assert sequence.started_s is not None
        return TokenEvent(
            token.token_id, finish_reason, sequence.started_s, time.perf_counter(), token.logprobs,
            sequence.cached_count,
        )  # fmt: skip

    def _decode_chunks(self) -> list[Chunk]:
        """One token of each sequence that decodes, with a place for it; the youngest make room for the oldest."""
        chunks = []
        index = 0
        while index < len(self._running):
            sequence = self._running[index]
            if sequence.length - sequence.computed_count == 1:
                while not self.cache.grow(sequence, sequence.length):
                    youngest = self._running[-1]
                    self._preempt(youngest)
                    if youngest is sequence:
                        break
                else:
                    chunks.append(Chunk(sequence, sequence.computed_count, 1))
            index += 1
        return chunks

    def _preempt(self, sequence: Sequence) -> None:
        self._leave(sequence)
        self.cache.release(sequence)
        self._waiting.put_back(sequence)
        self.counts.preempted += 1

    def _make_fair_room(self) -> None:
        """Ends the turn of sequences whose client has two more running than the client whose turn it is."""
        while (sequence := self._waiting.next(self._running_of)) and not self._has_room_for(sequence):
            [(most, count)] = self._running_of.most_common(1) or [("", 0)]
            if count < self._running_of[sequence.client] + 2:
                return
            self._preempt(next(one for one in reversed(self._running) if one.client == most))

    def _has_room_for(self, sequence: Sequence) -> bool:
        needed = self.cache.blocks_for(sequence.length) + len(self._running)
        return len(self._running) < self.max_sequences and needed <= self.cache.available_count

    def _leave(self, sequence: Sequence) -> None:
        self._running.remove(sequence)
        self._running_of[sequence.client] -= 1
        if not self._running_of[sequence.client]:
            del self._running_of[sequence.client]

    def _note_start(self, sequence: Sequence) -> None:
        if sequence.started_s is None:
            sequence.started_s = time.perf_counter()
            sequence.cached_count = min(sequence.computed_count, len(sequence.prompt_token_ids))
            self.counts.prompt_tokens += len(sequence.prompt_token_ids)

    def _finish_reason(self, sequence: Sequence) -> FinishReason | None:
        token_id, params = sequence.token_ids[-1], sequence.params
        if token_id in params.stop_token_ids or (token_id in self.stop_token_ids and not params.ignore_eos):
            return FinishReason.STOP
        if len(sequence.token_ids) >= params.max_tokens:
            return FinishReason.LENGTH
        return None

    def _drop(self, sequence: Sequence) -> bool:
        """Whether it was here."""
        if sequence in self._running:
            self._leave(sequence)
        elif sequence in self._parked:
            self._parked.remove(sequence)
        elif not self._waiting.remove(sequence):
            return False
        self.cache.release(sequence)
        return True


def _chunk(sequence: Sequence, budget: int) -> Chunk:
    start = sequence.computed_count
    return Chunk(sequence, start, min(sequence.length - start, budget))
