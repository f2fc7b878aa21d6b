"""The inference server as it is, on the demo model, with steps of a known length. For `benchmarks/service_cost.py`.

usage: python -m benchmarks.fixed_step WORK [flags of inference_server]

WORK: `grid` sleeps to a grid of 10 ms; `compute` multiplies matrices for about 10 ms in 100 calls that let go of
Python's lock, as torch's operations do, `call` in a single one, as compiled code does; `model` is the model's own step.
SIGUSR1 begins 64 sequences whose tokens go nowhere, SIGUSR2 ends them. With ENGINE_CPU and SERVICE_CPU in the
environment the engine's thread has one core for itself and all others have the other one.
"""

import asyncio
import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable
from collections.abc import Sequence as Rows
from pathlib import Path
from typing import Any

STEP_S = 0.01
STREAMS = 64
ENGINE_THREAD = "engine"
_LETTER = 70  # an ordinary token of one byte
_CALLS = {"compute": 100, "call": 1}


class Grid:
    """Moments of equal distance; who is late starts a new grid."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._next_s = 0.0

    def wait(self) -> None:
        now_s = time.perf_counter()
        self._next_s = max(self._next_s + self._step_s, now_s)
        time.sleep(self._next_s - now_s)


def sleeping() -> Callable[[], None]:
    return Grid(STEP_S).wait


def computing(calls: int) -> Callable[[], None]:
    """As many products of a step as take its time on a quiet core; their number does not change afterwards."""
    import torch

    columns = torch.ones(256, 256)

    def products(size: int) -> None:
        rows = torch.ones(size, 256)
        for _ in range(calls):
            torch.mm(rows, columns)

    def took_s(size: int) -> float:
        started_s = time.perf_counter()
        products(size)
        return time.perf_counter() - started_s

    size = least = 800 // calls
    while min(took_s(size) for _ in range(5)) < STEP_S:
        size += least
    return lambda: products(size)


class _FixedRunner:
    """Does the step's work and answers with the same letter."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work

    def forward(self, chunks: Rows[Any], keep_logits: bool) -> Any:
        import torch

        from inference_server.engine.types import Computed

        self._work()
        logits = torch.zeros(len(chunks) if keep_logits else 0, _LETTER + 1)
        logits[:, _LETTER] = 1.0
        return Computed([_LETTER] * len(chunks), logits)

    def probe(self) -> None:
        """Nothing can break."""

    def clear(self, block_ids: list[int]) -> None:
        """Nothing is kept."""


def _install(work: str) -> None:
    """Puts the work in the model's place and takes hold of the engine."""
    from inference_server import loading

    load_parts, assemble = loading.load_parts, loading.assemble

    def load_fixed(*arguments: Any) -> Any:
        parts = load_parts(*arguments)
        if work == "model":
            return parts
        runner: Any = _FixedRunner(sleeping() if work == "grid" else computing(_CALLS[work]))
        return dataclasses.replace(parts, runner=runner)

    def assemble_and_keep(*arguments: Any) -> Any:
        engine, loaded = assemble(*arguments)
        _on_signals(engine)
        thread_id = engine._thread.native_id
        assert thread_id
        Path(f"/proc/self/task/{thread_id}/comm").write_text(ENGINE_THREAD)
        if cpu := os.environ.get("ENGINE_CPU"):
            os.sched_setaffinity(thread_id, {int(cpu)})
        return engine, loaded

    for name, function in (("load_parts", load_fixed), ("assemble", assemble_and_keep)):
        setattr(loading, name, function)


def _on_signals(engine: Any) -> None:
    """Sequences that nobody waits for go into the engine as all others do."""
    from inference_server.engine.engine import _Add, _Cancel
    from inference_server.engine.types import SamplingParams, Sequence

    params = SamplingParams(0.0, 1.0, 0, seed=0, max_tokens=4000, ignore_eos=True)
    sequences: list[Sequence] = []

    def begin() -> None:
        sequences.extend(Sequence(tuple(range(300, 310)), params) for _ in range(STREAMS))
        for sequence in sequences:
            engine._inbox.put(_Add(sequence))

    def end() -> None:
        for sequence in sequences:
            engine._inbox.put(_Cancel(sequence))
        sequences.clear()

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, begin)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, end)


def main() -> None:
    work = sys.argv.pop(1)
    if cpu := os.environ.get("SERVICE_CPU"):
        os.sched_setaffinity(0, {int(cpu)})
    from inference_server.__main__ import main as serve

    _install(work)
    serve()


if __name__ == "__main__":
    main()
