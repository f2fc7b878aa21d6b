"""Scheduler and KV cache without a model: blocks are conserved at every step, nobody starves, prefixes are shared."""

import random
from collections import Counter

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from inference_server.engine.kv_cache import KVCache
from inference_server.engine.scheduler import Scheduler, StepBudget
from inference_server.engine.types import Chunk, SampledToken, SamplingParams, Sequence, TokenEvent

STOP = 9


def greedy(max_tokens: int) -> SamplingParams:
    return SamplingParams(0.0, 1.0, 0, seed=0, max_tokens=max_tokens)


def scheduler_of(
    block_count: int = 8, block_size: int = 4, max_sequences: int = 4, budget: int = 8, prefix_caching: bool = True
) -> Scheduler:
    cache = KVCache(block_count, block_size, b"salt", prefix_caching)
    return Scheduler(cache, frozenset({STOP}), max_sequences, StepBudget(budget))


def step(scheduler: Scheduler, token_id: int = 1) -> list[Chunk]:
    """Every chunk that samples gets the token."""
    chunks = scheduler.schedule()
    for chunk in chunks:
        scheduler.advance(chunk, SampledToken(token_id) if chunk.samples else None)
    return chunks


def run(scheduler: Scheduler, sequence: Sequence) -> Sequence:
    scheduler.add(sequence)
    while scheduler.running_count or scheduler.waiting_count:
        assert step(scheduler)
    return sequence


def check_blocks(scheduler: Scheduler, sequences: list[Sequence]) -> None:
    """Every block is free, known and idle, or held as often as the cache thinks; full known ones hold what they say."""
    cache = scheduler.cache
    held = Counter(block for sequence in sequences for block in sequence.block_ids)
    assert all(cache._holder_counts[block] == held[block] for block in range(cache.block_count + 1))
    free = {n for start, end in cache._free._end_of.items() for n in range(start, end)}
    idle = set(cache._evictable)
    assert not free & idle
    assert not (free | idle) & set(held)
    assert free | idle | set(held) == set(range(1, cache.block_count + 1))
    assert len(free) == cache._free.count
    assert set(cache._digest_of) == set(cache._block_of.values())
    assert idle <= set(cache._digest_of)
    for sequence in sequences:
        assert len(set(sequence.block_ids)) == len(sequence.block_ids)
        assert len(sequence.block_ids) * cache.block_size >= sequence.computed_count
        assert bool(sequence.block_ids) == (sequence in scheduler._running)


class SchedulerMachine(RuleBasedStateMachine):
    """Random arrivals, steps and cancels, on caches that are nearly too small."""

    @initialize(
        block_count=st.integers(2, 12), block_size=st.sampled_from([1, 2, 4]), max_sequences=st.integers(1, 5),
        budget=st.integers(4, 16), prefix_caching=st.booleans(),
    )  # fmt: skip
    def start(self, block_count: int, block_size: int, max_sequences: int, budget: int, prefix_caching: bool) -> None:
        self.scheduler = scheduler_of(block_count, block_size, max_sequences, budget, prefix_caching)
        self.budget = budget
        self.live: list[Sequence] = []
        self.content: dict[int, tuple[int, ...]] = {}  # what a real cache would hold: the tokens up to a block's end

    @rule(
        seed=st.integers(0, 2), length=st.integers(1, 30), answer=st.integers(1, 12), resumed=st.integers(0, 3),
        client=st.sampled_from("ABC"),
    )  # fmt: skip
    def add(self, seed: int, length: int, answer: int, resumed: int, client: str) -> None:
        room = self.scheduler.cache.token_capacity
        length = min(length, room - 1)
        answer = min(answer, room - length)
        prompt = tuple(random.Random(seed).choices(range(3), k=length))
        sequence = Sequence(prompt, greedy(answer), [1] * min(resumed, answer - 1), client)
        self.scheduler.add(sequence)
        self.live.append(sequence)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(self.live))
        self.scheduler.cancel(sequence)
        self.live.remove(sequence)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def park(self, data: st.DataObject) -> None:
        self.scheduler.park(data.draw(st.sampled_from(self.live)))

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def unpark(self, data: st.DataObject) -> None:
        self.scheduler.unpark(data.draw(st.sampled_from(self.live)))

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        running = [sequence for sequence in self.live if sequence in self.scheduler._running]
        if running:
            sequence = data.draw(st.sampled_from(running))
            for block in self.scheduler.distrust(sequence):
                self.content.pop(block, None)
            self.scheduler.fail(sequence)
            self.live.remove(sequence)

    @rule(stops=st.booleans())
    def step(self, stops: bool) -> None:
        chunks = self.scheduler.schedule()
        resting = self.scheduler.parked_count
        assert bool(chunks) == (len(self.live) > resting), "there is work and nobody runs"
        running = Counter(sequence.client for sequence in self.scheduler._running)
        assert running == self.scheduler._running_of
        decoding = sum(chunk.samples and chunk.count == 1 for chunk in chunks)
        assert sum(chunk.count for chunk in chunks) <= max(self.budget, decoding + self.budget // 4)
        for chunk in chunks:
            self.check_what_it_sees(chunk)
            event = self.scheduler.advance(chunk, SampledToken(STOP if stops else 1) if chunk.samples else None)
            if event and event.finish_reason:
                self.live.remove(chunk.sequence)

    def check_what_it_sees(self, chunk: Chunk) -> None:
        """Every block before the chunk holds this sequence's own tokens; then the chunk is written."""
        sequence, size = chunk.sequence, self.scheduler.cache.block_size
        tokens = tuple(sequence.tokens_from(0, chunk.start + chunk.count))
        for index in range(chunk.start // size):
            assert self.content[sequence.block_ids[index]][: (index + 1) * size] == tokens[: (index + 1) * size]
        for index in range(chunk.start // size, -(-len(tokens) // size)):
            self.content[sequence.block_ids[index]] = tokens[: (index + 1) * size]

    @invariant()
    def blocks_are_conserved(self) -> None:
        if hasattr(self, "scheduler"):
            check_blocks(self.scheduler, self.live)
            counts = self.scheduler.counts
            assert counts.started == counts.finished + counts.cancelled + counts.failed + len(self.live)

    def teardown(self) -> None:
        """Whatever is left and does not rest ends by itself: no deadlock."""
        for sequence in getattr(self, "live", ()):
            self.scheduler.unpark(sequence)
        for _ in range(3000):
            if not getattr(self, "live", None):
                return
            self.step(stops=False)
        raise AssertionError("sequences that never end")


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = hypothesis_settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_scheduler_machine_in_long_runs() -> None:
    long = hypothesis_settings(max_examples=2000, stateful_step_count=60, deadline=None)
    run_state_machine_as_test(SchedulerMachine, settings=long)


def test_decode_tokens_go_before_a_prompt_in_chunks() -> None:
    scheduler = scheduler_of(block_count=100, budget=8)
    decoding = Sequence((1, 2), greedy(50))
    scheduler.add(decoding)
    step(scheduler)
    reading = Sequence(tuple(range(30)), greedy(5))
    scheduler.add(reading)
    counts = []
    while reading.computed_count < 30:
        chunks = step(scheduler)
        assert [chunk.sequence for chunk in chunks] == [decoding, reading]
        assert chunks[0].count == 1
        counts.append(chunks[1].count)
    assert counts == [7, 7, 7, 7, 2]


def test_prompts_get_a_quarter_of_the_budget_however_many_decode() -> None:
    scheduler = scheduler_of(block_count=100, max_sequences=20, budget=8)
    for index in range(10):
        scheduler.add(Sequence((index,), greedy(50)))
    step(scheduler), step(scheduler)
    scheduler.add(Sequence(tuple(range(30)), greedy(5)))
    chunks = step(scheduler)
    assert [chunk.count for chunk in chunks] == [1] * 10 + [2]


def test_prompts_get_more_where_no_answer_waits_and_where_steps_are_long_anyway() -> None:
    budget = StepBudget(8, per_stream=3, alone=20)
    assert [budget.for_prompts(decoding) for decoding in (0, 1, 4)] == [20, 10, 16]
    scheduler = Scheduler(KVCache(100, 4, b"", True), frozenset({STOP}), 4, budget)
    scheduler.add(Sequence(tuple(range(30)), greedy(5)))
    assert [chunk.count for _ in range(2) for chunk in step(scheduler)] == [20, 10]
    scheduler.add(Sequence(tuple(range(50, 80)), greedy(5)))
    assert [chunk.count for chunk in step(scheduler)] == [1, 10]


def test_a_long_request_is_not_starved_by_short_ones() -> None:
    scheduler = scheduler_of(block_count=10, block_size=4, max_sequences=4)
    for index in range(3):
        scheduler.add(Sequence((index,) * 3, greedy(5)))
    step(scheduler)
    long = Sequence(tuple(range(30)), greedy(8))
    scheduler.add(long)
    for index in range(200):
        scheduler.add(Sequence((index % 7,) * 3, greedy(5)))
        step(scheduler)
        if len(long.token_ids) == 8:
            break
    assert len(long.token_ids) == 8
    assert scheduler.counts.finished < 20, "others of later arrival went before it"


def test_the_youngest_gives_way_and_is_computed_again_to_the_same_end() -> None:
    scheduler = scheduler_of(block_count=5, block_size=2, budget=16)
    old, young = Sequence((1, 2, 3), greedy(6)), Sequence((4, 5, 6), greedy(6))
    scheduler.add(old)
    scheduler.add(young)
    while len(old.token_ids) < 6:
        step(scheduler)
        check_blocks(scheduler, [sequence for sequence in (old, young) if sequence.block_ids])
    assert scheduler.counts.preempted >= 1
    while len(young.token_ids) < 6:
        step(scheduler)
    assert scheduler.cache.use.used_blocks == 0
    assert scheduler.counts.generated_tokens == 12


def test_a_new_sequence_leaves_a_block_for_each_that_runs() -> None:
    scheduler = scheduler_of(block_count=4, block_size=4)
    scheduler.add(Sequence((1, 2, 3), greedy(6)))
    step(scheduler)
    scheduler.add(Sequence(tuple(range(12)), greedy(2)))  # three blocks are left, and it needs three
    while scheduler.running_count == 1:
        step(scheduler)
    assert scheduler.counts.preempted == 0
    assert scheduler.counts.finished == 1


def test_one_request_may_need_every_block() -> None:
    scheduler = scheduler_of(block_count=6, block_size=4)
    assert len(run(scheduler, Sequence(tuple(range(20)), greedy(4))).token_ids) == 4
    assert len(run(scheduler, Sequence((1,), greedy(23))).token_ids) == 23


def test_growing_sequences_lie_in_few_runs() -> None:
    scheduler = scheduler_of(block_count=4096, block_size=4, max_sequences=16, budget=4096)
    sequences = [Sequence(tuple(range(index, index + 40)), greedy(200)) for index in range(16)]
    for sequence in sequences:
        scheduler.add(sequence)
    for _ in range(150):
        step(scheduler)
    runs = [1 + sum(b != a + 1 for a, b in zip(s.block_ids, s.block_ids[1:], strict=False)) for s in sequences]
    assert max(runs) == 1


def test_events_tell_what_was_cached_and_when() -> None:
    scheduler = scheduler_of()
    scheduler.add(Sequence((1, 2), greedy(1)))
    [chunk] = scheduler.schedule()
    event = scheduler.advance(chunk, SampledToken(5))
    assert isinstance(event, TokenEvent)
    assert (event.token_id, event.cached_count) == (5, 0)
    assert event.sampled_s >= event.started_s
