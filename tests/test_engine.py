"""The engine's loop with a runner that computes nothing: order, ends, failures."""

import asyncio
import os
import sys
import threading
import weakref
from collections.abc import Sequence as Rows

import pytest
import torch

from inference_server.engine.engine import Engine
from inference_server.engine.types import Chunk, FinishReason, SamplingParams
from inference_server.errors import EngineFailed, OutOfMemory, PromptTooLong, SequenceFailed
from tests.fakes import ENDLESS_TOKEN, FakeRunner, engine_over, one_hot, until


class ScriptedRunner(FakeRunner):
    """Says the given tokens, one a step, to every sequence."""

    def __init__(self, *token_ids: int) -> None:
        super().__init__()
        self._script = token_ids

    def rows(self, chunks: Rows[Chunk]) -> list[torch.Tensor]:
        return [one_hot(self._script[len(chunk.sequence.token_ids)]) for chunk in chunks]


class FaultyRunner(FakeRunner):
    """Fails for sequences whose prompt begins with 666; nan: gives them no numbers instead."""

    def __init__(self, error: Exception | None = None, gated: bool = False) -> None:
        super().__init__(gated)
        self.fault = error

    def rows(self, chunks: Rows[Chunk]) -> list[torch.Tensor]:
        bad = [chunk.sequence.prompt_token_ids[0] == 666 for chunk in chunks]
        if self.fault and any(bad):
            raise self.fault
        return [one_hot(ENDLESS_TOKEN) * (float("nan") if row_is_bad else 1.0) for row_is_bad in bad]


def engine_of(runner: FakeRunner, failures: list[BaseException] | None = None) -> Engine:
    return engine_over(runner, (failures if failures is not None else []).append, frozenset({7, 8}))


def greedy(max_tokens: int = 100, ignore_eos: bool = False) -> SamplingParams:
    return SamplingParams(0.0, 1.0, 0, seed=0, max_tokens=max_tokens, ignore_eos=ignore_eos)


async def collect(
    engine: Engine, params: SamplingParams, prompt: tuple[int, ...] = (1, 2), resumed: tuple[int, ...] = ()
) -> tuple[list[int], FinishReason | None]:
    events = [event async for arrived in engine.generate(prompt, params, resumed) for event in arrived]
    assert all(event.finish_reason is None for event in events[:-1])
    return [event.token_id for event in events], events[-1].finish_reason


def assert_nothing_is_left(engine: Engine) -> None:
    use = engine.use
    assert (use.running_count, use.waiting_count, use.cache.used_blocks) == (0, 0, 0)
    assert use.counts.started == use.counts.finished + use.counts.cancelled + use.counts.failed


@pytest.mark.parametrize("stop", [7, 8])
async def test_every_stop_id_ends_an_answer_and_belongs_to_it(stop: int) -> None:
    engine = engine_of(ScriptedRunner(5, 6, stop, 9))
    assert await collect(engine, greedy()) == ([5, 6, stop], FinishReason.STOP)
    assert_nothing_is_left(engine)
    await engine.stop()


async def test_ignore_eos_goes_on_to_max_tokens() -> None:
    engine = engine_of(ScriptedRunner(7, 8, 7, 8))
    assert await collect(engine, greedy(3, ignore_eos=True)) == ([7, 8, 7], FinishReason.LENGTH)
    await engine.stop()


async def test_stop_ids_of_the_request_end_it_also_with_ignore_eos() -> None:
    engine = engine_of(ScriptedRunner(7, 5, 6, 9))
    params = SamplingParams(0.0, 1.0, 0, 0, max_tokens=9, stop_token_ids=frozenset({6}), ignore_eos=True)
    assert await collect(engine, params) == ([7, 5, 6], FinishReason.STOP)
    await engine.stop()


async def test_stop_id_at_max_tokens_is_a_stop() -> None:
    engine = engine_of(ScriptedRunner(5, 7))
    assert await collect(engine, greedy(2)) == ([5, 7], FinishReason.STOP)
    await engine.stop()


async def test_resumed_tokens_are_counted_and_not_said_again() -> None:
    engine = engine_of(ScriptedRunner(1, 2, 3, 4, 5))
    assert await collect(engine, greedy(4), resumed=(1, 2)) == ([3, 4], FinishReason.LENGTH)
    await engine.stop()


async def test_what_can_never_fit_is_refused_and_what_just_fits_is_not() -> None:
    engine = engine_over(FakeRunner(), [].append, block_count=4)  # type: ignore[arg-type]
    with pytest.raises(PromptTooLong):
        await collect(engine, greedy(63))
    assert len((await collect(engine, greedy(62)))[0]) == 62
    await engine.stop()


async def test_first_come_is_first_served() -> None:
    failures: list[BaseException] = []
    engine, ended = engine_over(FakeRunner(), failures.append, max_sequences=2), []

    async def ask(number: int) -> None:
        await collect(engine, greedy(5))
        ended.append(number)

    await asyncio.gather(*(ask(number) for number in range(10)))
    assert ended == list(range(10))
    await engine.stop()


async def test_failure_ends_waiting_and_later_calls_and_is_told_once() -> None:
    runner, failures = FakeRunner(gated=True), []  # type: ignore[var-annotated]
    engine = engine_of(runner, failures)
    asking = [asyncio.ensure_future(collect(engine, greedy())) for _ in range(3)]
    await asyncio.sleep(0.05)
    runner.error = RuntimeError("broken")
    runner.allow(1)
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [EngineFailed] * 3
    with pytest.raises(EngineFailed):
        await collect(engine, greedy())
    assert failures == [runner.error]
    await engine.stop()


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (ValueError("odd"), SequenceFailed),
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemory),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), OutOfMemory),
        (None, SequenceFailed),  # no exception, but logits that are not numbers
    ],
    ids=["exception", "cuda memory", "cpu memory", "not finite"],
)
async def test_fault_of_one_sequence_ends_it_alone(fault: Exception | None, expected: type[Exception]) -> None:
    runner, failures = FaultyRunner(fault, gated=True), []  # type: ignore[var-annotated]
    engine = engine_of(runner, failures)
    prompts = [(5, 5), (666, 5), (5, 6)]
    asking = [asyncio.ensure_future(collect(engine, greedy(6), prompt)) for prompt in prompts]
    await until(lambda: engine.use.running_count + engine.use.waiting_count > 0)
    runner.allow(100)
    good, bad, other = await asyncio.gather(*asking, return_exceptions=True)
    assert type(bad) is expected or (fault is None and isinstance(bad, expected))
    assert good == other == ([ENDLESS_TOKEN] * 6, FinishReason.LENGTH)
    assert engine.use.counts.failed == 1
    assert_nothing_is_left(engine)
    assert failures == []
    assert await collect(engine, greedy(2)) == ([ENDLESS_TOKEN] * 2, FinishReason.LENGTH)
    await engine.stop()


async def test_a_failed_step_is_divided_and_every_part_counts_as_progress() -> None:
    runner = FaultyRunner(ValueError("odd"), gated=True)
    engine = engine_of(runner)
    prompts = [(666 if place == 5 else place + 1, 5) for place in range(16)]
    asking = [asyncio.ensure_future(collect(engine, greedy(1), prompt)) for prompt in prompts]
    await until(lambda: engine.use.running_count > 0)
    runner.allow(1000)
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert [place for place, outcome in enumerate(outcomes) if isinstance(outcome, Exception)] == [5]
    assert 6 <= engine.step_count <= 14, "halving 16 takes two tries for each of four halvings"
    await engine.stop()


async def test_what_a_failed_step_held_is_freed_before_it_is_tried_again() -> None:
    class HoldingRunner(FaultyRunner):
        held: "weakref.ref[torch.Tensor] | None" = None
        alive_at_retry = False

        def rows(self, chunks: Rows[Chunk]) -> list[torch.Tensor]:
            self.alive_at_retry |= self.held is not None and self.held() is not None
            activations = torch.zeros(10)
            self.held = weakref.ref(activations)
            return super().rows(chunks)

    runner = HoldingRunner(torch.OutOfMemoryError("CUDA out of memory"))
    engine = engine_of(runner)
    outcomes = await asyncio.gather(
        collect(engine, greedy(3)), collect(engine, greedy(3), (666, 1)), return_exceptions=True
    )
    assert isinstance(outcomes[1], OutOfMemory)
    assert not runner.alive_at_retry
    await engine.stop()


async def test_a_reader_that_was_away_gets_bounded_pieces_and_the_sequence_rests_meanwhile() -> None:
    engine = engine_of(FakeRunner())
    arrivals = engine.generate((1, 2), greedy(1000))
    pieces = [await anext(arrivals)]
    await until(lambda: engine.use.running_count == 0 and engine.use.counts.generated_tokens >= 256)
    made = engine.use.counts.generated_tokens
    assert made < 300
    assert not engine.has_work
    assert engine.use.cache.used_blocks == 0
    assert len((await collect(engine, greedy(5)))[0]) == 5  # nobody else is held up
    assert engine.use.counts.generated_tokens == made + 5
    pieces += [piece async for piece in arrivals]
    assert sum(map(len, pieces)) == 1000
    assert max(map(len, pieces)) == 32
    await engine.stop()


async def test_a_resting_sequence_can_be_cancelled() -> None:
    engine = engine_of(FakeRunner())
    arrivals = engine.generate((1, 2), greedy(1000))
    await anext(arrivals)
    await until(lambda: engine.use.running_count == 0 and engine.use.counts.generated_tokens >= 256)
    await arrivals.aclose()
    await until(lambda: engine.use.counts.cancelled == 1)
    assert engine.use.waiting_count == 0
    await engine.stop()


async def test_blocks_of_a_sequence_whose_logits_are_not_finite_are_cleared_and_unknown() -> None:
    runner = FaultyRunner()
    engine = engine_of(runner)
    prompt = (666, *range(150))  # three steps to read: blocks of the first two are known by then
    with pytest.raises(SequenceFailed):
        await collect(engine, greedy(6), prompt)
    assert len(runner.cleared) == 10
    assert engine.use.cache.cached_blocks == 0
    with pytest.raises(SequenceFailed):
        await collect(engine, greedy(6), prompt)
    assert engine.use.cache.hit_tokens == 0
    await engine.stop()


async def test_blocks_that_were_known_before_the_numbers_went_wrong_are_forgotten() -> None:
    class LateRunner(FakeRunner):
        def rows(self, chunks: Rows[Chunk]) -> list[torch.Tensor]:
            return [one_hot(ENDLESS_TOKEN) * (float("nan") if chunk.sequence.token_ids else 1.0) for chunk in chunks]

    engine = engine_of(LateRunner())
    for _ in range(2):
        with pytest.raises(SequenceFailed):
            await collect(engine, greedy(6), tuple(range(150)))
        assert engine.use.cache.cached_blocks == 0
    assert engine.use.cache.hit_tokens == 0
    await engine.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is the whole process's")
async def test_engines_thread_may_be_less_urgent_than_the_one_that_serves() -> None:
    engine = engine_over(FakeRunner(), [].append, niceness=3)  # type: ignore[arg-type]
    await collect(engine, greedy(2))
    served = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert os.getpriority(os.PRIO_PROCESS, engine._thread.native_id or 0) == min(served + 3, 19)
    assert served == os.getpriority(os.PRIO_PROCESS, os.getpid())
    await engine.stop()


async def test_probe_that_fails_after_a_fault_ends_the_engine() -> None:
    class BrokenDevice(FaultyRunner):
        def probe(self) -> None:
            raise RuntimeError("device lost")

    failures: list[BaseException] = []
    engine = engine_of(BrokenDevice(ValueError("odd")), failures)
    with pytest.raises(EngineFailed):
        await collect(engine, greedy(6), (666,))
    assert [str(failure) for failure in failures] == ["device lost"]
    await engine.stop()


async def test_step_that_is_stuck_does_not_keep_the_engine_from_stopping() -> None:
    runner = FakeRunner(gated=True)
    engine = engine_of(runner)
    asking = asyncio.ensure_future(collect(engine, greedy()))
    await asyncio.sleep(0.05)
    await asyncio.wait_for(engine.stop(), 30)
    assert not asking.done()
    runner.allow(1)
    await engine.stop()  # the thread must have ended before the loop closes
    asking.cancel()


async def test_engine_that_is_given_up_ends_every_call() -> None:
    runner, failures = FakeRunner(gated=True), []  # type: ignore[var-annotated]
    engine = engine_of(runner, failures)
    asking = asyncio.ensure_future(collect(engine, greedy()))
    await until(lambda: engine.has_work)
    engine.give_up()
    with pytest.raises(EngineFailed):
        await asking
    assert len(failures) == 1
    runner.allow(2)
    await engine.stop()


async def test_tokens_that_nobody_read_in_time_come_together() -> None:
    runner = FakeRunner(gated=True)
    engine = engine_of(runner)
    arrivals = engine.generate((1, 2), greedy(50))
    runner.allow(1)
    first = await anext(arrivals)
    runner.allow(49)
    while runner.step_count < 50:
        await asyncio.sleep(0.01)
    rest = [arrived async for arrived in arrivals]
    assert len(first) + sum(map(len, rest)) == 50
    assert max(map(len, [first, *rest])) > 1
    assert {event.token_id for arrived in rest for event in arrived} == {ENDLESS_TOKEN}
    await engine.stop()
