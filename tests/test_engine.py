"""The engine's loop with a runner that computes nothing: order, ends, failures."""

import asyncio
from collections.abc import Iterator

import pytest
import torch

from inference_server.engine.engine import Engine
from inference_server.engine.types import FinishReason, SamplingParams, Sequence
from inference_server.errors import EngineFailed
from tests.fakes import ENDLESS_TOKEN, FakeRunner


class ScriptedRunner(FakeRunner):
    """Says the given tokens, one a step."""

    def __init__(self, *token_ids: int) -> None:
        super().__init__()
        self._script: Iterator[int] = iter(token_ids)

    def forward(self, sequence: Sequence) -> torch.Tensor | None:
        super().forward(sequence)
        return torch.nn.functional.one_hot(torch.tensor([next(self._script)]), 200).float()


def engine_of(runner: FakeRunner, failures: list[BaseException] | None = None) -> Engine:
    engine = Engine(runner, frozenset({7, 8}), on_failure=(failures if failures is not None else []).append)  # type: ignore[arg-type]
    engine.start()
    return engine


def greedy(max_tokens: int = 100, ignore_eos: bool = False) -> SamplingParams:
    return SamplingParams(0.0, 1.0, 0, seed=0, max_tokens=max_tokens, ignore_eos=ignore_eos)


async def collect(engine: Engine, params: SamplingParams) -> tuple[list[int], FinishReason | None]:
    events = [event async for arrived in engine.generate((1, 2), params) for event in arrived]
    assert all(event.finish_reason is None for event in events[:-1])
    return [event.token_id for event in events], events[-1].finish_reason


@pytest.mark.parametrize("stop", [7, 8])
async def test_every_stop_id_ends_an_answer_and_belongs_to_it(stop: int) -> None:
    runner = ScriptedRunner(5, 6, stop, 9)
    engine = engine_of(runner)
    assert await collect(engine, greedy()) == ([5, 6, stop], FinishReason.STOP)
    assert runner.sequence_count == 0
    await engine.stop()


async def test_ignore_eos_goes_on_to_max_tokens() -> None:
    engine = engine_of(ScriptedRunner(7, 8, 7, 8))
    assert await collect(engine, greedy(3, ignore_eos=True)) == ([7, 8, 7], FinishReason.LENGTH)
    await engine.stop()


async def test_stop_id_at_max_tokens_is_a_stop() -> None:
    engine = engine_of(ScriptedRunner(5, 7))
    assert await collect(engine, greedy(2)) == ([5, 7], FinishReason.STOP)
    await engine.stop()


async def test_first_come_is_first_served() -> None:
    engine, ended = engine_of(FakeRunner()), []

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
