"""The forward pass of dense Qwen3 models, as the published checkpoints have it.

Query, key and value projections are merged into one product, gate and up projections into another. Keys and values are
the caller's business: it hands in how a layer attends. Knows no sequences.
Source: the Qwen3 technical report and transformers' Qwen3ForCausalLM, which tests compare it with.
"""

from collections.abc import Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.qwen3.configuration_qwen3 import Qwen3Config

from inference_server.engine.linear import Linear


class Attend(Protocol):
    """How one layer attends: stores the new keys and values and returns what the queries see.

    query: [T, Hq, D]; key, value: [T, Hkv, D]. Returns [T, Hq, D].
    """

    def __call__(
        self, layer_index: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor: ...


class Qwen3(nn.Module):
    """Token ids to logits."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.embedding = _Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.num_hidden_layers))
        self.norm = _RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.output = Linear(config.hidden_size, config.vocab_size)
        self.rotary = _Rotary(config)

    def forward(
        self, token_ids: torch.Tensor, positions: torch.Tensor, attend: Attend, rows: torch.Tensor
    ) -> torch.Tensor:
        """token_ids, positions: [T] int64. Returns the logits that follow the tokens in `rows`: [S, V]."""
        cosine, signed_sine = self.rotary(positions, self.embedding.weight.dtype)
        hidden = self.embedding(token_ids)  # [T, H]
        for layer in self.layers:
            hidden = layer(hidden, cosine, signed_sine, attend)
        logits: torch.Tensor = self.output(self.norm(hidden[rows]))
        return logits

    def published_parameters(self, tied: bool) -> Iterator[tuple[str, torch.Tensor]]:
        """The names of the published layout, each with the (part of the) parameter that its weight belongs into.

        tied: the checkpoint has no output weight of its own.
        """
        yield "model.embed_tokens.weight", self.embedding.weight
        yield "model.norm.weight", self.norm.weight
        if not tied:
            yield "lm_head.weight", self.output.weight
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            for name, part in layer.published_parameters():
                yield f"model.layers.{index}.{name}.weight", part


class _Embedding(nn.Embedding):
    def reset_parameters(self) -> None:
        """As `Linear.reset_parameters`."""


class _RMSNorm(nn.Module):
    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Normalises the last dimension, computed in float32."""
        return F.rms_norm(hidden, self.weight.shape, self.weight, self.epsilon)


class _Rotary(nn.Module):
    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self._base: float = dict(config.rope_parameters or {})["rope_theta"]  # transformers fills it in
        self._head_size = config.head_dim

    def forward(self, positions: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """positions: [T]. Returns cosine and signed sine, [T, 1, D] each."""
        exponents = torch.arange(0, self._head_size, 2, device=positions.device).float() / self._head_size
        angles = positions[:, None].float() * self._base**-exponents  # [T, D / 2]
        cosine, sine = angles.cos().to(dtype), angles.sin().to(dtype)
        return torch.cat((cosine, cosine), dim=-1)[:, None], torch.cat((-sine, sine), dim=-1)[:, None]


def _rotate(heads: torch.Tensor, cosine: torch.Tensor, signed_sine: torch.Tensor) -> torch.Tensor:
    """heads: [T, heads, D], whose two halves are turned against each other."""
    return torch.addcmul(heads * cosine, heads.roll(heads.shape[-1] // 2, dims=-1), signed_sine)


class Layer(nn.Module):
    """One of a model's decoder layers."""

    def __init__(self, config: Qwen3Config, index: int) -> None:
        super().__init__()
        hidden, epsilon, self.head_size = config.hidden_size, config.rms_norm_eps, config.head_dim
        self.index = index
        key_value_heads = config.num_key_value_heads or config.num_attention_heads
        self.head_counts = [config.num_attention_heads, key_value_heads, key_value_heads]
        self.intermediate = config.intermediate_size
        self.attention_norm = _RMSNorm(hidden, epsilon)
        self.query_key_value = Linear(hidden, sum(self.head_counts) * self.head_size)
        self.query_norm = _RMSNorm(self.head_size, epsilon)
        self.key_norm = _RMSNorm(self.head_size, epsilon)
        self.attention_output = Linear(self.head_counts[0] * self.head_size, hidden)
        self.mlp_norm = _RMSNorm(hidden, epsilon)
        self.gate_up = Linear(hidden, 2 * self.intermediate)
        self.down = Linear(self.intermediate, hidden)

    def forward(
        self, hidden: torch.Tensor, cosine: torch.Tensor, signed_sine: torch.Tensor, attend: Attend
    ) -> torch.Tensor:
        """hidden: [T, H]."""
        projected = self.query_key_value(self.attention_norm(hidden)).unflatten(-1, (-1, self.head_size))
        query, key, value = projected.split(self.head_counts, dim=1)  # [T, heads, D]
        query = _rotate(self.query_norm(query), cosine, signed_sine)
        key = _rotate(self.key_norm(key), cosine, signed_sine)
        hidden = self.attention_output.plus(attend(self.index, query, key, value).flatten(1), hidden)
        gate, up = self.gate_up(self.mlp_norm(hidden)).chunk(2, dim=-1)  # [T, I] each
        return self.down.plus(F.silu(gate) * up, hidden)

    def published_parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        widths = [count * self.head_size for count in self.head_counts]
        query, key, value = self.query_key_value.weight.split(widths)
        gate, up = self.gate_up.weight.chunk(2)
        yield "input_layernorm", self.attention_norm.weight
        yield "self_attn.q_proj", query
        yield "self_attn.k_proj", key
        yield "self_attn.v_proj", value
        yield "self_attn.q_norm", self.query_norm.weight
        yield "self_attn.k_norm", self.key_norm.weight
        yield "self_attn.o_proj", self.attention_output.weight
        yield "post_attention_layernorm", self.mlp_norm.weight
        yield "mlp.gate_proj", gate
        yield "mlp.up_proj", up
        yield "mlp.down_proj", self.down.weight
