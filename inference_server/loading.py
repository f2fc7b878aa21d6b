"""From settings to a service that can answer: tokenizer, weights, engine, warm-up.

Imports torch and transformers, so the server imports it in the loading thread, when its port is open already.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import transformers

from inference_server.chat.prompt import PromptEncoder
from inference_server.completion import Completions, SamplingDefaults
from inference_server.config import Settings
from inference_server.engine.engine import Engine
from inference_server.engine.model_loader import LoadedModel, load_model, read_config
from inference_server.engine.model_runner import ModelRunner
from inference_server.errors import StartupError
from inference_server.servicer import LoadedService

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class LoadedParts:
    """What the loading thread hands over to the event loop."""

    encoder: PromptEncoder
    model: LoadedModel
    max_context_tokens: int


def load_parts(checkpoint_dir: Path, settings: Settings, on_progress: Callable[[float], None]) -> LoadedParts:
    """The slow part: reads tokenizer and weights. Raises StartupError."""
    if not checkpoint_dir.is_dir():
        raise StartupError(f"--model {checkpoint_dir}: no such directory; `make download` gets Qwen3, demo is built in")
    transformers.logging.set_verbosity_error()  # what it warns of is refused below, or of no consequence
    config = read_config(checkpoint_dir)
    encoder = PromptEncoder(checkpoint_dir)
    model = load_model(checkpoint_dir, config, settings.device, settings.dtype, on_progress)
    longest = model.config.max_position_embeddings
    if (settings.max_context_tokens or 0) > longest:
        raise StartupError(f"--max-context-tokens: this model has at most {longest}, got {settings.max_context_tokens}")
    return LoadedParts(encoder, model, settings.max_context_tokens or longest)


def assemble(
    parts: LoadedParts, served_name: str, on_failure: Callable[[BaseException], None]
) -> tuple[Engine, LoadedService]:
    """Starts the engine on the running event loop."""
    generation = parts.model.generation
    defaults = SamplingDefaults(
        temperature=_or(generation.temperature, 1.0), top_p=_or(generation.top_p, 1.0), top_k=_or(generation.top_k, 0)
    )
    engine = Engine(ModelRunner(parts.model), parts.model.stop_token_ids, on_failure)
    engine.start()
    names = (served_name, f"Qwen/{served_name}")
    completions = Completions(engine, parts.encoder, defaults, names, parts.max_context_tokens)
    return engine, LoadedService(
        completions=completions,
        dtype=str(parts.model.dtype).removeprefix("torch."),
        device=parts.model.device.type,
        versions={name: version(name) for name in ("torch", "transformers", "grpcio")},
    )


def _or(value: _T | None, default: _T) -> _T:
    return default if value is None else value
