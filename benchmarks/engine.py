"""The engine alone, on a checkpoint: waiting while a prompt is read, the second turn of a conversation, a step's time.

usage: python -m benchmarks.engine CHECKPOINT [gap|turn|step] [--max-step-tokens N] [--runs 5]
"""

import asyncio
import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from inference_server.config import command
from inference_server.engine.engine import Engine
from inference_server.engine.step import Step
from inference_server.engine.types import SamplingParams
from inference_server.loading import LoadedParts, load_parts

_PROMPT_TOKENS = 2000
_HISTORY_TOKENS = 1000
_STEP_PROMPT_TOKENS = 200
_STEPS = 30


def greedy(max_tokens: int) -> SamplingParams:
    return SamplingParams(0.0, 1.0, 0, seed=0, max_tokens=max_tokens, ignore_eos=True)


def prompt(length: int, start: int) -> tuple[int, ...]:
    """Ordinary tokens; another start gives another prompt from the first token on."""
    return tuple((start * 7919 + place * 31) % 2000 + 5 for place in range(length))


async def token_times(engine: Engine, prompt_token_ids: tuple[int, ...], count: int, times: list[float]) -> None:
    """Appends when each token was sampled."""
    async for events in engine.generate(prompt_token_ids, greedy(count)):
        times += [event.sampled_s for event in events]


def gaps_ms(times: list[float]) -> list[float]:
    return [(after - before) * 1e3 for before, after in itertools.pairwise(times)]


async def gap(engine: Engine, parts: LoadedParts, runs: int) -> None:
    """A stream's longest gap while a prompt of 2,000 tokens is read, against its usual gap."""
    ratios = []
    for run in range(runs):
        times: list[float] = []
        streaming = asyncio.create_task(token_times(engine, prompt(20, 3 * run), 200, times))
        while len(times) < 15:  # noqa: ASYNC110 - tokens set no event
            await asyncio.sleep(0.01)
        usual = statistics.median(gaps_ms(times[2:]))
        before, reading = len(times), list[float]()
        started_s = time.perf_counter()
        await token_times(engine, prompt(_PROMPT_TOKENS, 3 * run + 1), 1, reading)
        longest = max(gaps_ms(times[before - 1 :]))
        ratios.append(longest / usual)
        read_s = reading[0] - started_s
        told = f"usual {usual:.0f} ms, longest {longest:.0f} ms, {ratios[-1]:.1f}x; prompt read in {read_s:.1f} s"
        print(f"run {run}: {told}")
        streaming.cancel()
        await asyncio.gather(streaming, return_exceptions=True)
    print(f"longest over usual gap, median of {runs}: {statistics.median(ratios):.1f}")


async def turn(engine: Engine, parts: LoadedParts, runs: int) -> None:
    """Time to the first token of a second turn over 1,000 tokens of history, against a cold one."""
    shares = []
    for run in range(runs):
        first_ms = []
        history = prompt(_HISTORY_TOKENS, 1000 + run)
        for prompt_token_ids in (history, (*history, *prompt(20, 2000 + run))):
            times: list[float] = []
            started_s = time.perf_counter()
            await token_times(engine, prompt_token_ids, 1, times)
            first_ms.append((times[0] - started_s) * 1e3)
        shares.append(first_ms[1] / first_ms[0])
        print(f"run {run}: cold {first_ms[0]:.0f} ms, second turn {first_ms[1]:.0f} ms, {shares[-1]:.1%}")
    print(f"second turn over cold, median of {runs}: {statistics.median(shares):.1%}")


async def step(engine: Engine, parts: LoadedParts, runs: int) -> None:
    """Where the time of a decode step goes at 1, 16 and 64 streams, in ms; medians over the steps that all are in."""
    for streams in (1, 16, 64):
        spent: dict[str, list[tuple[float, float]]] = defaultdict(list)
        with timed(spent, *_places(engine, parts)):
            lists = [list[float]() for _ in range(streams)]
            answers = [
                asyncio.create_task(token_times(engine, prompt(_STEP_PROMPT_TOKENS, 3000 + place), 1000, times))
                for place, times in enumerate(lists)
            ]
            while min(len(times) for times in lists) < _STEPS:  # noqa: ASYNC110 - tokens set no event
                await asyncio.sleep(0.01)
            for answer in answers:
                answer.cancel()
            await asyncio.gather(*answers, return_exceptions=True)
        begin_s, end_s = max(times[0] for times in lists), min(times[-1] for times in lists)
        whole = statistics.median(gaps_ms([sampled_s for sampled_s in lists[0] if begin_s <= sampled_s <= end_s]))
        parts_ms = {
            name: statistics.median(ms for ended_s, ms in calls if begin_s < ended_s <= end_s)
            for name, calls in spent.items()
        }
        told = ", ".join(f"{name} {ms:.2f}" for name, ms in parts_ms.items())
        print(f"{streams} streams: {whole:.1f} ms a step: {told}, else {whole - sum(parts_ms.values()):.2f}")


def _places(engine: Engine, parts: LoadedParts) -> list[tuple[str, Any, str]]:
    """What is timed: a name, the object and its method. None is inside another."""
    return [
        ("schedule", engine._scheduler, "schedule"), ("forward", parts.runner, "forward"),
        ("sample", engine._step._sampler, "sample"), ("call back", engine, "_call_back"),
    ]  # fmt: skip


@contextmanager
def timed(spent: dict[str, list[tuple[float, float]]], *places: tuple[str, Any, str]) -> Iterator[None]:
    """Wraps methods so that each call's end and milliseconds are kept."""

    def wrapped(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            started_s = time.perf_counter()
            try:
                return method(*args, **named)
            finally:
                ended_s = time.perf_counter()
                spent[name].append((ended_s, (ended_s - started_s) * 1e3))

        return call

    for name, owner, method in places:
        setattr(owner, method, wrapped(name, getattr(owner, method)))
    yield
    for _, owner, method in places:
        delattr(owner, method)


async def measure(parts: LoadedParts, what: str, runs: int) -> None:
    failures: list[BaseException] = []
    engine = Engine(Step(parts.runner, parts.sampler), parts.scheduler, failures.append)
    engine.start()
    await {"gap": gap, "turn": turn, "step": step}[what](engine, parts, runs)
    await engine.stop()


@click.command(help=__doc__)
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("what", type=click.Choice(["gap", "turn", "step"]))
@click.option("--runs", default=5, show_default=True, type=click.IntRange(1, 100))
@click.option("--max-step-tokens", default=None, help="As the server has it.")
def main(checkpoint: Path, what: str, runs: int, max_step_tokens: str | None) -> None:
    flags = ["--model", str(checkpoint), "--device", "cpu"]
    flags += ["--max-step-tokens", max_step_tokens] if max_step_tokens else []

    def run(settings: Any) -> None:
        with ThreadPoolExecutor(1) as loading:  # ends, as the server's does: OpenMP spins less beside idle teams
            parts = loading.submit(load_parts, checkpoint, settings, lambda share: None).result()
        asyncio.run(measure(parts, what, runs))

    command(run).main(flags, standalone_mode=False)


if __name__ == "__main__":
    main()
