"""Weights in the order in which the compiled code reads them."""

import contextlib
import ctypes
import mmap

import torch

from inference_server.engine.model_loader import LoadedModel
from inference_server.engine.models.qwen3 import Layer
from inference_server.engine.native.library import BLOCK, LayerParts, ModelParts


def pages(byte_count: int, large: bool = False) -> torch.Tensor:
    """Zeros [byte_count] uint8 that take no memory before they are touched. large: asks for large pages."""
    memory = mmap.mmap(-1, byte_count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # large pages are for private ones
    if large and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


class PackedWeights:
    """Takes the weights out of a model's modules, layer by layer, so that hardly any is held twice.

    layers, parts: what the compiled code gets; whoever runs it copies them and sets the layers' keys and values.
    """

    @torch.inference_mode()
    def __init__(self, model: LoadedModel) -> None:
        module, config = model.module, model.config
        self._kept: list[torch.Tensor] = []  # what the addresses point to
        self.layers = (LayerParts * config.num_hidden_layers)()
        for parts, layer in zip(self.layers, module.layers, strict=True):
            assert isinstance(layer, Layer)
            parts.attention_norm = self._floats(layer.attention_norm.weight)
            parts.query_norm = self._floats(layer.query_norm.weight)
            parts.key_norm = self._floats(layer.key_norm.weight)
            parts.mlp_norm = self._floats(layer.mlp_norm.weight)
            parts.query_key_value, parts.attention_output, parts.gate_up, parts.down = self._panels(
                layer.query_key_value.weight, layer.attention_output.weight, _side_by_side(layer.gate_up.weight),
                layer.down.weight,
            )  # fmt: skip
            layer.to("meta")  # lets go of the weights
            _give_back()
        (output,) = self._panels(module.output.weight)
        module.output.to("meta")
        _give_back()
        self._kept.append(module.embedding.weight)
        exponents = torch.arange(0, config.head_dim, 2).float() / config.head_dim
        frequencies = dict(config.rope_parameters or {})["rope_theta"] ** -exponents
        key_heads = config.num_key_value_heads or config.num_attention_heads
        self.parts = ModelParts(
            config.num_hidden_layers, config.hidden_size, config.num_attention_heads, key_heads, config.head_dim,
            config.intermediate_size, config.vocab_size, config.rms_norm_eps, module.embedding.weight.data_ptr(),
            self._floats(module.norm.weight), self._floats(frequencies), output, self.layers,
        )  # fmt: skip

    def _floats(self, numbers: torch.Tensor) -> int:
        self._kept.append(numbers.float().contiguous())
        return self._kept[-1].data_ptr()

    def _panels(self, *weights: torch.Tensor) -> list[int]:
        """Where the packed weights lie, one behind the other: what is read ahead at the end of one is the next."""
        sizes = [-(-len(weight) // BLOCK) * BLOCK * weight.shape[1] * 2 for weight in weights]
        whole = pages(sum(sizes), large=True)
        self._kept.append(whole)
        parts = whole.split(sizes)
        for weight, part in zip(weights, parts, strict=True):
            _pack(weight, part)
        return [part.data_ptr() for part in parts]


def _pack(weight: torch.Tensor, packed: torch.Tensor) -> None:
    """weight: [O, I] bfloat16. packed: zeros, get panels [I / 2, 32] of pairs of inputs; see tile.h."""
    pairs = weight.contiguous().view(torch.int32)  # [O, I / 2]
    panels = packed.view(torch.int32).view(-1, pairs.shape[1], BLOCK)
    whole, rest = divmod(len(pairs), BLOCK)
    panels[:whole] = pairs[: whole * BLOCK].unflatten(0, (whole, BLOCK)).transpose(1, 2)
    if rest:
        panels[whole, :, :rest] = pairs[whole * BLOCK :].T


def _side_by_side(gate_up: torch.Tensor) -> torch.Tensor:
    """[2 I, H], gate before up. Returns [2 I, H] in which half panels of both take turns."""
    gate, up = gate_up.unflatten(0, (2, -1, BLOCK // 2))  # [I / 16, 16, H] each
    return torch.stack((gate, up), dim=1).flatten(0, 2)


def _give_back() -> None:
    """Memory that was freed, to the system: GNU's malloc keeps up to all of what is smaller than 32 MiB."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
