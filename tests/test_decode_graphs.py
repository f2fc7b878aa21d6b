"""Decode steps through tensors that never move, as CUDA graphs need them; the graphs themselves need a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from inference_server.engine.attention.gathered import GatheredAttention
from inference_server.engine.decode_graphs import DecodeGraphs
from inference_server.engine.model_runner import ModelRunner
from inference_server.engine.types import Chunk, SamplingParams, Sequence
from tests.checkpoints import Shape, write_checkpoint
from tests.model_engine import ALONE, EngineOptions, SteppedEngine, attention_of, load, tokens_of

GREEDY = SamplingParams(0.0, 1.0, 0, seed=0, max_tokens=12, ignore_eos=True)


class EagerGraph:
    """Stands for torch.cuda.CUDAGraph: runs again what was captured, over the same tensors."""

    captured: "EagerGraph | None" = None

    def __init__(self) -> None:
        self.replays = 0

    def pool(self) -> None:
        return None

    def replay(self) -> None:
        self.replays += 1


@contextmanager
def capturing(graph: EagerGraph, pool: object) -> Iterator[None]:
    yield


@pytest.fixture
def eager_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaying computes anew into the captured output."""
    monkeypatch.setattr(torch.cuda, "CUDAGraph", EagerGraph)
    monkeypatch.setattr(torch.cuda, "graph", capturing)
    replay = DecodeGraphs.replay

    def computing(self: DecodeGraphs, size: int, token_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        logits = replay(self, size, token_ids, positions)
        return logits.copy_(self._compute(self._token_ids[:size], self._positions[:size], self._rows[:size]))

    monkeypatch.setattr(DecodeGraphs, "replay", computing)


@pytest.mark.usefixtures("eager_graphs")
def test_padded_decode_steps_give_the_answers_of_plain_ones(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, Shape())
    model = load(tmp_path)
    engine = SteppedEngine(model, EngineOptions())
    runner = ModelRunner(model, attention_of(model, EngineOptions(attention=GatheredAttention)), graph_sizes=(1, 2, 4))
    runner.warm_up()
    engine.use_runner(runner)
    prompts = [tuple(range(start, start + 9)) for start in (3, 50, 100)]
    sequences = [engine.add(prompt, GREEDY) for prompt in prompts]
    while engine.is_busy:
        engine.step()
    for prompt, sequence in zip(prompts, sequences, strict=True):
        assert tokens_of(engine.events[sequence]) == tokens_of(SteppedEngine(model, ALONE).answer(prompt, GREEDY))
    assert runner._graphs
    replays = {size: graph.replays for size, graph in runner._graphs._graphs.items()}  # type: ignore[attr-defined]
    assert replays[4] == 11, "three sequences decode eleven times each, in the graph for four"


@pytest.mark.usefixtures("eager_graphs")
def test_only_decode_steps_of_a_captured_size_are_replayed() -> None:
    graphs = DecodeGraphs(lambda ids, positions, rows: torch.zeros(len(ids), 3), (1, 4), torch.device("cpu"))
    chunk = _decode_chunk()
    assert graphs.size_for([chunk]) is None, "nothing is captured yet"
    graphs.capture(lambda size: None)
    assert graphs.size_for([chunk]) == 1
    assert graphs.size_for([chunk] * 3) == 4
    assert graphs.size_for([chunk] * 5) is None
    assert graphs.size_for([chunk, _prompt_chunk()]) is None


def _decode_chunk() -> Chunk:
    return Chunk(Sequence((1, 2, 3), GREEDY), 2, 1)


def _prompt_chunk() -> Chunk:
    return Chunk(Sequence((1, 2, 3), GREEDY), 0, 2)
