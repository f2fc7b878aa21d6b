"""An engine over a real model, without the service around it."""

from collections.abc import AsyncIterator
from collections.abc import Sequence as Rows
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from inference_server.engine.attention.gathered import GatheredAttention
from inference_server.engine.attention.in_place import InPlaceAttention
from inference_server.engine.attention.types import Attention, CacheShape
from inference_server.engine.engine import Engine
from inference_server.engine.kv_cache import KVCache
from inference_server.engine.model_loader import LoadedModel, read_config
from inference_server.engine.model_runner import ModelRunner
from inference_server.engine.native.library import BLOCK
from inference_server.engine.native.runner import NativeRunner
from inference_server.engine.native.weights import PackedWeights
from inference_server.engine.sampler import Sampler
from inference_server.engine.scheduler import Scheduler, StepBudget
from inference_server.engine.step import Runner, Step
from inference_server.engine.types import Chunk, SamplingParams, Sequence, TokenEvent
from tests.checkpoints import load_model


@dataclass(frozen=True)
class EngineOptions:
    """What tests vary. None of it may change an answer."""

    block_count: int = 512
    block_size: int = 16
    max_sequences: int = 64
    max_step_tokens: int = 64
    prefix_caching: bool = True
    attention: type[InPlaceAttention] | type[GatheredAttention] = InPlaceAttention


@dataclass(frozen=True)
class NativeModel:
    """A model whose weights the compiled code has."""

    weights: PackedWeights


ALONE = EngineOptions(max_sequences=1, max_step_tokens=4096, prefix_caching=False)
STOP_IDS = frozenset({0})


def load(directory: Path, dtype: str = "auto") -> LoadedModel:
    torch.set_num_threads(1)  # such small models gain nothing from more, and lose a lot where others are busy
    return load_model(directory, read_config(directory), "cpu", dtype, lambda share: None)


def attention_of(model: LoadedModel, options: EngineOptions) -> Attention:
    config = model.config
    shape = CacheShape(
        config.num_hidden_layers, config.num_key_value_heads or 0, config.head_dim, options.block_count + 1,
        options.block_size, model.dtype, model.device,
    )  # fmt: skip
    return options.attention(shape)


def runner_of(model: LoadedModel | NativeModel, options: EngineOptions) -> Runner:
    if isinstance(model, LoadedModel):
        return ModelRunner(model, attention_of(model, options))
    assert options.block_size == BLOCK
    return NativeRunner(model.weights, options.block_count + 1)


def scheduler_of(options: EngineOptions) -> Scheduler:
    cache = KVCache(options.block_count, options.block_size, b"salt", options.prefix_caching)
    return Scheduler(cache, STOP_IDS, options.max_sequences, StepBudget(options.max_step_tokens))


class SteppedEngine:
    """The engine's parts without its thread: the test takes the steps."""

    def __init__(self, model: LoadedModel | NativeModel, options: EngineOptions) -> None:
        self.scheduler = scheduler_of(options)
        self.events: dict[Sequence, list[TokenEvent]] = {}
        self.use_runner(runner_of(model, options))

    def use_runner(self, runner: Runner) -> None:
        self._step = Step(runner, Sampler(STOP_IDS))

    def add(self, prompt: Rows[int], params: SamplingParams, resumed: Rows[int] = (), client: str = "") -> Sequence:
        sequence = Sequence(tuple(prompt), params, list(resumed), client)
        self.events[sequence] = []
        self.scheduler.add(sequence)
        return sequence

    @property
    def is_busy(self) -> bool:
        return bool(self.scheduler.running_count or self.scheduler.waiting_count)

    def step(self) -> list[Chunk]:
        chunks = self.scheduler.schedule()
        for chunk, outcome in zip(chunks, self._step.run(chunks), strict=True):
            assert not isinstance(outcome, Exception)
            event = self.scheduler.advance(chunk, outcome)
            if event:
                self.events[chunk.sequence].append(event)
        return chunks

    def answer(self, prompt: Rows[int], params: SamplingParams, resumed: Rows[int] = ()) -> list[TokenEvent]:
        """Alone, to its end."""
        sequence = self.add(prompt, params, resumed)
        while self.is_busy:
            self.step()
        return self.events.pop(sequence)


@asynccontextmanager
async def running_engine(model: LoadedModel, options: EngineOptions) -> AsyncIterator[Engine]:
    """With its thread."""
    engine = Engine(
        Step(runner_of(model, options), Sampler(STOP_IDS)),
        scheduler_of(options),
        on_failure=lambda error: None,
    )
    engine.start()
    yield engine
    await engine.stop()


def tokens_of(events: Rows[TokenEvent]) -> list[int]:
    return [event.token_id for event in events]


def all_logits(model: LoadedModel, token_ids: Rows[int]) -> torch.Tensor:
    """The reference: the whole sequence in one pass, [T, V]."""
    attention = attention_of(model, EngineOptions(block_count=512, attention=GatheredAttention))
    sequence = Sequence(tuple(token_ids), NO_PARAMS, block_ids=list(range(1, 1 + -(-len(token_ids) // 16))))
    attention.prepare([Chunk(sequence, 0, len(token_ids))])
    with torch.inference_mode():
        places = torch.arange(len(token_ids))
        logits: torch.Tensor = model.module(torch.tensor(token_ids), places, attention.attend, places)
    return logits


NO_PARAMS = SamplingParams(0.0, 1.0, 0, seed=0, max_tokens=1)
