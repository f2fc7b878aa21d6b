"""Weights in the order in which the compiled code reads them."""

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from transformers.models.qwen3.configuration_qwen3 import Qwen3Config

from inference_server.engine.model_loader import LoadedModel, Place
from inference_server.engine.native.library import BLOCK, LayerParts, Library, ModelParts

_HALF = BLOCK // 2


def pages(byte_count: int, large: bool = False) -> torch.Tensor:
    """Zeros [byte_count] uint8 that take no memory before they are touched. large: asks for large pages."""
    memory = mmap.mmap(-1, byte_count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # large pages are for private ones
    if large and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


@dataclass(frozen=True, slots=True)
class _Part:
    """A published weight's rows among the columns of a product: runs of `run` beside each other, from `begin` on."""

    name: str
    rows: int
    begin: int = 0
    run: int = BLOCK


class PackedWeights:
    """Room for a model's weights, undefined until each is put to its place.

    layers, parts: what the compiled code gets; whoever runs it copies them and sets the layers' keys and values.
    """

    def __init__(self, config: Qwen3Config, library: Library, unknown_token_ids: frozenset[int] = frozenset()) -> None:
        """unknown_token_ids: those of the model's vocabulary that the tokenizer does not have."""
        self.library = library
        self.places: dict[str, Place] = {}
        self._kept: list[torch.Tensor] = []  # what the addresses point to
        hidden, vocabulary, intermediate = config.hidden_size, config.vocab_size, config.intermediate_size
        key_heads = config.num_key_value_heads or config.num_attention_heads
        attended, seen = config.num_attention_heads * config.head_dim, key_heads * config.head_dim
        self.layers = (LayerParts * config.num_hidden_layers)()
        for index, parts in enumerate(self.layers):
            own = f"model.layers.{index}"
            parts.attention_norm = self._norm(f"{own}.input_layernorm", hidden)
            parts.query_norm = self._norm(f"{own}.self_attn.q_norm", config.head_dim)
            parts.key_norm = self._norm(f"{own}.self_attn.k_norm", config.head_dim)
            parts.mlp_norm = self._norm(f"{own}.post_attention_layernorm", hidden)
            query = _Part(f"{own}.self_attn.q_proj", attended)
            key = _Part(f"{own}.self_attn.k_proj", seen, attended)
            value = _Part(f"{own}.self_attn.v_proj", seen, attended + seen)
            gate = _Part(f"{own}.mlp.gate_proj", intermediate, 0, _HALF)
            up = _Part(f"{own}.mlp.up_proj", intermediate, _HALF, _HALF)
            parts.query_key_value, parts.attention_output, parts.gate_up, parts.down = self._products(
                (hidden, [query, key, value]), (attended, [_Part(f"{own}.self_attn.o_proj", hidden)]),
                (hidden, [gate, up]), (intermediate, [_Part(f"{own}.mlp.down_proj", hidden)]),
            )  # fmt: skip
        (output,) = self._products((hidden, [_Part("lm_head", vocabulary)]))
        embedding = self._embedding(vocabulary, hidden, config.tie_word_embeddings)
        exponents = torch.arange(0, config.head_dim, 2).float() / config.head_dim
        frequencies = dict(config.rope_parameters or {})["rope_theta"] ** -exponents
        known = torch.ones(vocabulary, dtype=torch.uint8)
        known[list(unknown_token_ids)] = 0
        self._kept += frequencies, known
        self.parts = ModelParts(
            config.num_hidden_layers, hidden, config.num_attention_heads, key_heads, config.head_dim, intermediate,
            vocabulary, config.rms_norm_eps, embedding, self._norm("model.norm", hidden), frequencies.data_ptr(),
            output, known.data_ptr(), self.layers,
        )  # fmt: skip

    @classmethod
    def of(cls, model: LoadedModel, library: Library) -> "PackedWeights":
        """A copy of the weights of a model's modules."""
        packed = cls(model.config, library)
        for name, parameter in model.module.published_parameters(tied=model.config.tie_word_embeddings):
            packed.places[name].put(parameter.detach())
        return packed

    def _norm(self, name: str, size: int) -> int:
        numbers = torch.empty(size)
        self._kept.append(numbers)
        self._place(name, (size,), numbers.copy_)
        return numbers.data_ptr()

    def _embedding(self, vocabulary: int, hidden: int, tied: bool) -> int:
        """tied: its weight is the output's as well."""
        table = pages(vocabulary * hidden * 2, large=True).view(torch.bfloat16).view(vocabulary, hidden)
        self._kept.append(table)
        output = self.places.pop("lm_head.weight") if tied else None

        def put(weight: torch.Tensor) -> None:
            table.copy_(weight)
            if output:
                output.put(weight)

        self._place("model.embed_tokens", table.shape, put)
        return table.data_ptr()

    def _products(self, *products: tuple[int, list[_Part]]) -> list[int]:
        """Where the panels of each product lie, one behind the other: what is read ahead at the end is the next one's.

        products: how many inputs each one has, and what its columns are.
        """
        columns = [sum(part.rows for part in parts) for _, parts in products]
        sizes = [-(-count // BLOCK) * BLOCK * inputs * 2 for count, (inputs, _) in zip(columns, products, strict=True)]
        whole = pages(sum(sizes), large=True)
        self._kept.append(whole)
        addresses = [panels.data_ptr() for panels in whole.split(sizes)]
        for address, (inputs, parts) in zip(addresses, products, strict=True):
            for part in parts:
                put = partial(self.library.pack, panels=address, begin=part.begin, run=part.run)
                self._place(part.name, (part.rows, inputs), put)
        return addresses

    def _place(self, name: str, shape: tuple[int, ...], put: Callable[[torch.Tensor], object]) -> None:
        """Other types are rounded to bfloat16 first, which is what the model runs in."""
        self.places[f"{name}.weight"] = Place(torch.Size(shape), lambda weight: put(weight.to(torch.bfloat16)))
