"""From settings to a service that can answer: tokenizer, weights, engine, warm-up.

Imports torch and transformers, so the server imports it in the loading thread, when its port is open already.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import transformers

from inference_server.chat.prompt import PromptEncoder
from inference_server.completion import Completions, SamplingDefaults
from inference_server.config import Settings
from inference_server.engine.engine import Engine
from inference_server.engine.model_loader import LoadedModel, load_model, read_config, read_generation_config
from inference_server.engine.model_runner import ModelRunner
from inference_server.errors import StartupError
from inference_server.servicer import LoadedService
from protos.chat.v1.ranges import RANGES


@dataclass(frozen=True, slots=True)
class LoadedParts:
    """What the loading thread hands over to the event loop."""

    encoder: PromptEncoder
    model: LoadedModel
    defaults: SamplingDefaults
    stop_token_ids: frozenset[int]
    max_context_tokens: int


def load_parts(checkpoint_dir: Path, settings: Settings, on_progress: Callable[[float], None]) -> LoadedParts:
    """The slow part: reads tokenizer and weights. Raises StartupError."""
    if not checkpoint_dir.is_dir():
        raise StartupError(f"--model {checkpoint_dir}: no such directory; `make download` gets Qwen3, demo is built in")
    transformers.logging.set_verbosity_error()  # what it warns of is refused below, or of no consequence
    config = read_config(checkpoint_dir)
    longest = config.max_position_embeddings
    if (settings.max_context_tokens or 0) > longest:
        raise StartupError(f"--max-context-tokens: this model has at most {longest}, got {settings.max_context_tokens}")
    generation = read_generation_config(checkpoint_dir)
    encoder = PromptEncoder(checkpoint_dir)
    last_token_id = max(encoder.tokenizer.get_vocab().values())
    if last_token_id >= config.vocab_size:  # a request that names it would reach behind the logits
        raise StartupError(
            f"{checkpoint_dir}/tokenizer.json: token {last_token_id} is beyond the model's {config.vocab_size}"
        )
    stop = config.eos_token_id if generation.eos_token_id is None else generation.eos_token_id
    return LoadedParts(
        encoder=encoder,
        model=load_model(checkpoint_dir, config, settings.device, settings.dtype, on_progress),
        defaults=_sampling_defaults(checkpoint_dir, generation),
        stop_token_ids=frozenset([stop] if isinstance(stop, int) else stop or ()),
        max_context_tokens=settings.max_context_tokens or longest,
    )


def assemble(
    parts: LoadedParts, served_name: str, on_failure: Callable[[BaseException], None]
) -> tuple[Engine, LoadedService]:
    """Starts the engine on the running event loop."""
    engine = Engine(ModelRunner(parts.model), parts.stop_token_ids, on_failure)
    engine.start()
    bare = served_name.removeprefix("Qwen/")
    names = (served_name, bare, f"Qwen/{bare}")
    return engine, LoadedService(
        completions=Completions(
            engine, parts.encoder, parts.defaults, names, parts.max_context_tokens, parts.stop_token_ids
        ),
        dtype=str(parts.model.dtype).removeprefix("torch."),
        device=parts.model.device.type,
        versions={name: version(name) for name in ("torch", "transformers", "grpcio")},
    )


def _sampling_defaults(checkpoint_dir: Path, generation: transformers.GenerationConfig) -> SamplingDefaults:
    chosen = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    for name in chosen:
        value = getattr(generation, name)
        if value is None:
            continue
        if not isinstance(value, int | float) or value not in RANGES[name]:
            raise StartupError(f"{checkpoint_dir}/generation_config.json: {name}: expected {RANGES[name]}, got {value}")
        chosen[name] = value
    top_k = int(chosen.pop("top_k"))
    return SamplingDefaults(top_k=top_k, **chosen)
