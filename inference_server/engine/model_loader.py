"""A checkpoint directory to a model on its device. Called once at the start, in a thread of its own.

transformers gives the configuration, accelerate builds the modules without memory; the weights go tensor by tensor
straight from the mapped files to where they will be used, and each tells the caller how far the load is.
"""

import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, GenerationConfig
from transformers.models.qwen3.configuration_qwen3 import Qwen3Config

from inference_server.engine.device import choose_device, choose_dtype, describe, require_memory
from inference_server.engine.models.qwen3 import Qwen3
from inference_server.errors import StartupError

_log = logging.getLogger(__name__)
_READERS = 2  # the pages of a mapped file come one by one to each


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model on its device; its modules have no memory where compiled code has the weights.

    layer_parameter_count: without embedding and output.
    """

    module: Qwen3
    config: Qwen3Config
    device: torch.device
    dtype: torch.dtype
    layer_parameter_count: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a weight of a checkpoint belongs. put: brings it there, from any thread."""

    shape: torch.Size
    put: Callable[[torch.Tensor], object]


def build_model(checkpoint_dir: Path, config: Qwen3Config, device: str, dtype: str) -> LoadedModel:
    """A dense Qwen3 model whose modules have no memory yet.

    device: auto, cuda or cpu. dtype: auto, bfloat16 or float32. Raises StartupError where the checkpoint or the device
    cannot be used.
    """
    target = choose_device(device)
    _log.info("%s", describe(target))
    weight_dtype = choose_dtype(dtype, target, config.dtype)
    try:
        with init_empty_weights():
            module = Qwen3(config)
    except Exception as error:  # negative or missing sizes
        raise StartupError(f"{checkpoint_dir}/config.json: no model can be built from its sizes") from error
    published = module.published_parameters(tied=config.tie_word_embeddings)
    parameter_count = sum(parameter.numel() for _, parameter in published)
    if config.tie_word_embeddings and target.type == "cpu" and weight_dtype is torch.bfloat16:
        parameter_count += module.output.weight.numel()  # products have it in an order of their own
    require_memory(parameter_count, weight_dtype, target)
    layer_parameter_count = sum(parameter.numel() for parameter in module.layers.parameters())
    return LoadedModel(module.to(weight_dtype).eval(), config, target, weight_dtype, layer_parameter_count)


def module_places(model: LoadedModel) -> dict[str, Place]:
    """Gives the modules memory on the model's device; by published name, where in it each weight belongs."""
    module, is_tied = model.module.to_empty(device=model.device), model.config.tie_word_embeddings
    if is_tied:
        module.output.weight = module.embedding.weight
    published = module.published_parameters(tied=is_tied)
    return {name: Place(parameter.shape, parameter.detach().copy_) for name, parameter in published}


def read_weights(
    places: dict[str, Place], checkpoint_dir: Path, config: Qwen3Config, on_progress: Callable[[float], None]
) -> None:
    """Puts a checkpoint's weights to their places. on_progress gets the loaded share of the bytes, 0 to 1.

    Raises StartupError where the weights are not those that config.json says.
    """
    empty = dict(places)
    puts: list[tuple[Future[object], float]] = []
    with ThreadPoolExecutor(_READERS) as readers:
        for name, weight, share in _read_shards(checkpoint_dir):
            if name == "lm_head.weight" and config.tie_word_embeddings:
                continue  # some tied checkpoints hold it twice
            place = empty.pop(name, None)
            if place is None:
                raise StartupError(f"{checkpoint_dir}: unexpected weight {name}; this is not a dense Qwen3 checkpoint")
            if place.shape != weight.shape:
                shapes = f"{list(weight.shape)}, not {list(place.shape)}"
                raise StartupError(f"{checkpoint_dir}: weight {name} has shape {shapes} as config.json says")
            puts.append((readers.submit(place.put, weight), share))
        for put, share in puts:
            put.result()
            on_progress(share)
    on_progress(1.0)
    if empty:
        raise StartupError(f"{checkpoint_dir}: {len(empty)} weights are missing, {min(empty)} the first")


def read_config(checkpoint_dir: Path) -> Qwen3Config:
    """The configuration of a dense Qwen3 checkpoint. Raises StartupError for any other."""
    if not (checkpoint_dir / "config.json").is_file():
        raise StartupError(f"{checkpoint_dir}: no config.json there; --model wants a checkpoint directory or demo")
    try:
        config = AutoConfig.from_pretrained(checkpoint_dir, local_files_only=True)
    except Exception as error:  # its checks raise many kinds
        raise StartupError(f"{checkpoint_dir}/config.json: cannot be read as a model's configuration") from error
    if not isinstance(config, Qwen3Config):
        raise StartupError(f"{checkpoint_dir}: a {config.model_type} checkpoint; this server runs dense Qwen3 models")
    rope_type = (config.rope_parameters or {}).get("rope_type", "default")
    for name, value, supported in (
        ("rope_type", rope_type, "default"),
        ("attention_bias", config.attention_bias, False),
        ("use_sliding_window", config.use_sliding_window, False),
        ("hidden_act", config.hidden_act, "silu"),
    ):
        if value != supported:
            raise StartupError(f"{checkpoint_dir}/config.json: {name} {value}: only {supported} is supported")
    return config


def read_generation_config(checkpoint_dir: Path) -> GenerationConfig:
    """What the checkpoint says about using it; empty where it says nothing. Raises StartupError."""
    if not (checkpoint_dir / "generation_config.json").is_file():
        return GenerationConfig()
    try:
        return GenerationConfig.from_pretrained(checkpoint_dir, local_files_only=True)
    except Exception as error:  # its checks raise many kinds
        raise StartupError(f"{checkpoint_dir}/generation_config.json: cannot be read") from error


def _read_shards(checkpoint_dir: Path) -> Iterator[tuple[str, torch.Tensor, float]]:
    """Name, weight and the share of bytes read with it, shard by shard."""
    paths = _shard_paths(checkpoint_dir)
    total_bytes = sum(path.stat().st_size for path in paths)
    read_bytes = 0
    for path in paths:
        try:
            with safe_open(path, framework="pt") as shard:
                for name in shard.keys():  # noqa: SIM118 - safe_open is not a mapping
                    weight = shard.get_tensor(name)
                    read_bytes += weight.nbytes
                    yield name, weight, min(read_bytes / total_bytes, 1.0)
        except SafetensorError as error:
            raise StartupError(f"{path}: truncated or not a safetensors file ({error})") from error


def _shard_paths(checkpoint_dir: Path) -> list[Path]:
    index = checkpoint_dir / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StartupError(f"{index}: cannot be read as an index of weights") from error
    else:
        names = ["model.safetensors"]
    absent = [name for name in names if not (checkpoint_dir / name).is_file()]
    if absent:
        raise StartupError(f"{checkpoint_dir}: {absent[0]} is missing")
    return [checkpoint_dir / name for name in names]
