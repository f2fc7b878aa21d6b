"""A checkpoint directory to a model on its device. Called once at the start, in a thread of its own.

transformers gives the configuration, accelerate builds the modules without memory; the weights go tensor by tensor
straight from the mapped files to where they will be used, and each tells the caller how far the load is.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from transformers.models.qwen3.configuration_qwen3 import Qwen3Config

from inference_server.checkpoint.weight_files import stored_weights
from inference_server.engine.device import choose_device, choose_dtype, describe, require_memory
from inference_server.engine.models.qwen3 import Qwen3
from inference_server.errors import StartupError

_log = logging.getLogger(__name__)
EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
_PREFIX = "model."
_BUFFER = "rotary_emb.inv_freq"  # kept by old versions of transformers, which now ignores it
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
    files = _CheckpointWeights(checkpoint_dir)
    empty, read_bytes = dict(places), 0
    puts: list[tuple[Future[object], float]] = []
    with ThreadPoolExecutor(_READERS) as readers:
        for name, stored_name in files.names.items():
            if name == OUTPUT and config.tie_word_embeddings and EMBEDDING in files.names:
                continue  # it repeats the embedding
            place_name = EMBEDDING if name == OUTPUT and config.tie_word_embeddings else name
            place = empty.pop(place_name, None)
            if place is None:
                raise StartupError(
                    f"{checkpoint_dir}: unexpected weight {stored_name}; this is not a dense Qwen3 checkpoint"
                )
            weight = files.read(name)
            if place.shape != weight.shape:
                shapes = f"{list(weight.shape)}, not {list(place.shape)}"
                raise StartupError(f"{checkpoint_dir}: weight {stored_name} has shape {shapes} as config.json says")
            read_bytes += weight.nbytes
            puts.append((readers.submit(place.put, weight), min(read_bytes / files.total_bytes, 1.0)))
        for put, share in puts:
            put.result()
            on_progress(share)
    on_progress(1.0)
    if empty:
        raise StartupError(f"{checkpoint_dir}: {len(empty)} weights are missing, {min(empty)} the first")


class _CheckpointWeights:
    """The weights of a checkpoint's files, by their published names."""

    def __init__(self, checkpoint_dir: Path) -> None:
        stored = stored_weights(checkpoint_dir)
        buffers = {name for name in stored if name.endswith(_BUFFER)}
        if buffers:
            _log.info("%d stored rotary frequencies are not read: config.json's rope_theta says them", len(buffers))
        published = {_published_name(name): name for name in stored if name not in buffers}
        if len(published) + len(buffers) < len(stored):
            raise StartupError(
                f"{checkpoint_dir}: some weights are there twice, with {_PREFIX} before their names and without"
            )
        self.names = published  # published name: name in the files
        self.total_bytes = sum(path.stat().st_size for path in {one.path for own in stored.values() for one in own})
        self._stored = stored
        self._shards: dict[Path, Any] = {}

    def read(self, name: str) -> torch.Tensor:
        """The tensor over the mapped file. Raises StartupError where files disagree about it."""
        stored_name = self.names[name]
        first, *others = self._stored[stored_name]
        weight = self._from(first.path, stored_name)
        for other in others:
            if not _are_equal(weight, self._from(other.path, stored_name)):
                files = f"{first.path.name} and {other.path.name}"
                raise StartupError(f"{first.path.parent}: weight {stored_name} is in {files}, with different numbers")
        return weight

    def _from(self, path: Path, stored_name: str) -> torch.Tensor:
        try:
            if path not in self._shards:
                self._shards[path] = safe_open(path, framework="pt")
            weight: torch.Tensor = self._shards[path].get_tensor(stored_name)
        except SafetensorError as error:
            raise StartupError(f"{path}: truncated or not a safetensors file ({error})") from error
        return weight


def _are_equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """By their numbers, whatever their types."""
    if one.dtype != other.dtype:
        one, other = one.double(), other.double()
    return torch.equal(one, other)


def _published_name(name: str) -> str:
    """A base model, saved without the output layer's class around it, leaves the prefix out."""
    return name if name == OUTPUT or name.startswith(_PREFIX) else _PREFIX + name


def read_config(checkpoint_dir: Path) -> Qwen3Config:
    """The configuration of a dense Qwen3 checkpoint, whose files say whether the output layer is the embedding.

    Raises StartupError where the model cannot be computed as it says.
    """
    try:
        config = Qwen3Config.from_pretrained(checkpoint_dir, local_files_only=True)
    except Exception as error:  # its checks raise many kinds
        raise StartupError(f"{checkpoint_dir}/config.json: cannot be read as a model's configuration") from error
    rope_type = (config.rope_parameters or {}).get("rope_type", "default")
    for name, value, supported in (
        ("rope_type", rope_type, "default"),
        ("attention_bias", config.attention_bias, False),
        ("use_sliding_window", config.use_sliding_window, False),
        ("hidden_act", config.hidden_act, "silu"),
    ):
        if value != supported:
            raise StartupError(f"{checkpoint_dir}/config.json: {name} {value}: only {supported} is supported")
    if config.dtype is None:
        config.dtype = _stored_dtype(checkpoint_dir)
    if config.tie_word_embeddings:
        config.tie_word_embeddings = not _has_own_output(checkpoint_dir)
    return config


def _stored_dtype(checkpoint_dir: Path) -> torch.dtype:
    """What an old config.json does not say."""
    dtypes = {own[0].dtype for own in stored_weights(checkpoint_dir).values()}
    return torch.bfloat16 if dtypes == {"BF16"} else torch.float32


def _has_own_output(checkpoint_dir: Path) -> bool:
    """Whether a checkpoint that is said to be tied holds two different weights.

    Source: transformers' PreTrainedModel.tie_weights, which then does not tie them.
    """
    files = _CheckpointWeights(checkpoint_dir)
    if OUTPUT not in files.names or EMBEDDING not in files.names:
        return False
    is_own = not _are_equal(files.read(OUTPUT), files.read(EMBEDDING))
    if is_own:
        _log.warning("config.json says tie_word_embeddings, but lm_head.weight is not the embedding: it is used")
    return is_own
