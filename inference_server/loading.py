"""From settings to a service that can answer: tokenizer, weights, engine, warm-up.

Imports torch and transformers, so the server imports it in the loading thread, when its port is open already.
"""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import transformers

from inference_server.admission import Admission, QueueLimits
from inference_server.chat.prompt import PromptEncoder
from inference_server.chat.reply import Vocabulary
from inference_server.completion import Completions, SamplingDefaults
from inference_server.config import Settings
from inference_server.engine.cache_memory import CacheLimits, CachePlan, make_attention, plan_cache
from inference_server.engine.decode_graphs import ladder
from inference_server.engine.device import choose_threads
from inference_server.engine.engine import Engine
from inference_server.engine.kv_cache import KVCache
from inference_server.engine.linear import pack, packing_pays
from inference_server.engine.model_loader import (
    LoadedModel,
    build_model,
    module_places,
    read_config,
    read_weights,
)
from inference_server.engine.model_runner import ModelRunner
from inference_server.engine.native.choice import choose_draw, choose_library
from inference_server.engine.native.library import BLOCK
from inference_server.engine.native.runner import NativeRunner
from inference_server.engine.native.weights import PackedWeights
from inference_server.engine.pace import Pace, work_of
from inference_server.engine.sampler import Sampler
from inference_server.engine.scheduler import Scheduler, StepBudget
from inference_server.engine.step import Step
from inference_server.errors import StartupError
from inference_server.generation_config import end_token_ids, read_generation_config, sampling_defaults
from inference_server.metrics import Metrics
from inference_server.servicer import LoadedService

_log = logging.getLogger(__name__)
_CUDA_STEP_TOKENS = 512  # not measured
# On the CPU a step of prompt tokens may take so many operations: some five decode steps, whatever the model, where
# streams wait for it, and four times as many where none does. Small models take more tokens in each step.
_CPU_STEP_OPERATIONS = 56e9
_CPU_STEP_TOKENS = (64, 512)  # the least and the most
_CPU_STEP_TOKENS_PER_STREAM = 8
_ALONE = 4
# Threads that compute on the CPU let those go first that serve, or tokens wait for each other in messages.
_CPU_NICENESS = 3


@dataclass(frozen=True, slots=True)
class LoadedParts:
    """What the loading thread hands over to the event loop."""

    encoder: PromptEncoder
    vocabulary: Vocabulary
    model: LoadedModel
    runner: ModelRunner | NativeRunner
    sampler: Sampler
    scheduler: Scheduler
    defaults: SamplingDefaults
    max_context_tokens: int
    pace: Pace


def load_parts(checkpoint_dir: Path, settings: Settings, on_progress: Callable[[float], None]) -> LoadedParts:
    """The slow part: reads tokenizer and weights. Raises StartupError."""
    transformers.logging.set_verbosity_error()  # what it warns of is refused below, or of no consequence
    config = read_config(checkpoint_dir)
    longest = config.max_position_embeddings
    if (settings.max_context_tokens or 0) > longest:
        raise StartupError(f"--max-context-tokens: this model has at most {longest}, got {settings.max_context_tokens}")
    generation = read_generation_config(checkpoint_dir)
    encoder = PromptEncoder(checkpoint_dir)
    vocabulary = Vocabulary(encoder.tokenizer)
    last = vocabulary.last_token_id
    if last >= config.vocab_size:  # a request that names it would reach behind the logits
        raise StartupError(f"{checkpoint_dir}/tokenizer.json: token {last} is beyond the model's {config.vocab_size}")
    stop_token_ids = end_token_ids(checkpoint_dir, generation, config, encoder.end_token_id, last)
    defaults = sampling_defaults(checkpoint_dir, generation)
    _log.info("computing on the CPU with %s", choose_threads())
    model = build_model(checkpoint_dir, config, settings.device, settings.dtype)
    library = choose_library(model)
    unknown_token_ids = vocabulary.unknown_token_ids(config.vocab_size)
    packed = PackedWeights(config, library, unknown_token_ids) if library else None
    places = packed.places if packed else module_places(model)
    read_weights(places, checkpoint_dir, config, on_progress)
    budget = _step_budget(model, settings.max_step_tokens)
    runner, plan = _runner(model, packed, settings, budget.tokens, unknown_token_ids)
    cache = KVCache(plan.block_count, plan.block_size, os.urandom(16), settings.prefix_caching)
    scheduler = Scheduler(cache, stop_token_ids, settings.max_sequences, budget)
    sampler, longest = Sampler(stop_token_ids, unknown_token_ids, choose_draw(model.device)), plan.max_context_tokens
    pace = _pace(model, runner)
    return LoadedParts(encoder, vocabulary, model, runner, sampler, scheduler, defaults, longest, pace)


def _pace(model: LoadedModel, runner: ModelRunner | NativeRunner) -> Pace:
    """What is known before the first chat: how long one token takes."""
    config = model.config
    parameter_count = model.layer_parameter_count + config.hidden_size * config.vocab_size
    attended = config.num_hidden_layers * config.num_attention_heads * config.head_dim
    pace, started_s = Pace(work_of(parameter_count, attended)), time.perf_counter()
    runner.probe()
    pace.learn_from_one_token(time.perf_counter() - started_s)
    return pace


def _step_budget(model: LoadedModel, asked: int | None) -> StepBudget:
    if model.device.type == "cuda":
        return StepBudget(asked or _CUDA_STEP_TOKENS)
    least, most = _CPU_STEP_TOKENS
    affordable = int(_CPU_STEP_OPERATIONS / (2 * model.layer_parameter_count))
    if asked:
        return StepBudget(asked)
    return StepBudget(min(max(affordable, least), most), _CPU_STEP_TOKENS_PER_STREAM, min(affordable * _ALONE, most))


def _runner(
    model: LoadedModel,
    packed: PackedWeights | None,
    settings: Settings,
    step_tokens: int,
    unknown_token_ids: frozenset[int],
) -> tuple[ModelRunner | NativeRunner, CachePlan]:
    limits = CacheLimits(
        settings.kv_cache_gib, settings.gpu_memory_fraction, settings.max_context_tokens, settings.max_sequences,
        step_tokens,
    )  # fmt: skip
    if not packed and packing_pays(model.module.output.weight):
        pack(model.module)
    plan = plan_cache(model, limits)
    _log.info(
        "KV cache: %d blocks of %d tokens; one request may have %d tokens",
        plan.block_count, plan.block_size, plan.max_context_tokens,
    )  # fmt: skip
    runner: ModelRunner | NativeRunner
    if packed:
        assert plan.block_size == BLOCK
        runner = NativeRunner(packed, plan.block_count + 1)
    else:
        attention = make_attention(model, plan, limits)
        graph_sizes = ladder(settings.max_sequences) if attention.is_capturable else ()
        runner = ModelRunner(model, attention, graph_sizes, unknown_token_ids)
    runner.warm_up()
    return runner, plan


def assemble(
    parts: LoadedParts,
    settings: Settings,
    served_name: str,
    on_failure: Callable[[BaseException], None],
    metrics: Metrics,
) -> tuple[Engine, LoadedService]:
    """Starts the engine on the running event loop."""
    step = Step(parts.runner, parts.sampler)
    limits = QueueLimits(
        settings.max_queued_requests,
        settings.max_queued_tokens,
        settings.max_queue_wait_s,
        settings.max_client_requests,
    )
    delay_s = settings.max_chunk_delay_ms / 1000
    niceness = _CPU_NICENESS if parts.model.device.type == "cpu" else 0
    engine = Engine(step, parts.scheduler, on_failure, metrics.observe_step, delay_s, niceness, parts.pace)
    engine.start()
    bare = served_name.removeprefix("Qwen/")
    names = (served_name, bare, f"Qwen/{bare}")
    dtype, device = str(parts.model.dtype).removeprefix("torch."), parts.model.device.type
    metrics.describe({"model_name": served_name, "dtype": dtype, "device": device}, lambda: engine.use)
    return engine, LoadedService(
        completions=Completions(
            engine, parts.encoder, parts.vocabulary, parts.defaults, names, parts.max_context_tokens,
            parts.scheduler.stop_token_ids, metrics.observe_gap,
        ),
        admission=Admission(limits, engine),
        dtype=dtype,
        device=device,
        use=lambda: engine.use,
        versions={name: version(name) for name in ("torch", "transformers", "grpcio")},
    )  # fmt: skip
