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
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(_Layer(config, index) for index in range(config.num_hidden_layers))
        self.norm = _RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.output = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.rotary = _Rotary(config)

    def forward(
        self, token_ids: torch.Tensor, positions: torch.Tensor, attend: Attend, rows: torch.Tensor
    ) -> torch.Tensor:
        """token_ids, positions: [T] int64. Returns the logits that follow the tokens in `rows`: [S, V] float32."""
        cosine, sine = self.rotary(positions, self.embedding.weight.dtype)
        hidden = self.embedding(token_ids)  # [T, H]
        for layer in self.layers:
            hidden = layer(hidden, cosine, sine, attend)
        logits: torch.Tensor = self.output(self.norm(hidden[rows])).float()
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
            assert isinstance(layer, _Layer)
            for name, part in layer.published_parameters():
                yield f"model.layers.{index}.{name}.weight", part


class _RMSNorm(nn.Module):
    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Normalises the last dimension, computed in float32."""
        wide = hidden.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return self.weight * wide.to(hidden.dtype)


class _Rotary(nn.Module):
    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self._base: float = dict(config.rope_parameters or {})["rope_theta"]  # transformers fills it in
        self._head_size = config.head_dim

    def forward(self, positions: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """positions: [T]. Returns cosine and sine, [T, 1, D] each."""
        exponents = torch.arange(0, self._head_size, 2, device=positions.device).float() / self._head_size
        angles = positions[:, None].float() * self._base**-exponents  # [T, D / 2]
        angles = torch.cat((angles, angles), dim=-1)[:, None]
        return angles.cos().to(dtype), angles.sin().to(dtype)


def _rotate(heads: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """heads: [T, heads, D], whose two halves are turned against each other."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cosine + torch.cat((-second, first), dim=-1) * sine


class _Layer(nn.Module):
    def __init__(self, config: Qwen3Config, index: int) -> None:
        super().__init__()
        hidden, epsilon, self.head_size = config.hidden_size, config.rms_norm_eps, config.head_dim
        self.index = index
        key_value_heads = config.num_key_value_heads or config.num_attention_heads
        head_counts = (config.num_attention_heads, key_value_heads, key_value_heads)
        self.widths = [count * self.head_size for count in head_counts]
        self.intermediate = config.intermediate_size
        self.attention_norm = _RMSNorm(hidden, epsilon)
        self.query_key_value = nn.Linear(hidden, sum(self.widths), bias=False)
        self.query_norm = _RMSNorm(self.head_size, epsilon)
        self.key_norm = _RMSNorm(self.head_size, epsilon)
        self.attention_output = nn.Linear(self.widths[0], hidden, bias=False)
        self.mlp_norm = _RMSNorm(hidden, epsilon)
        self.gate_up = nn.Linear(hidden, 2 * self.intermediate, bias=False)
        self.down = nn.Linear(self.intermediate, hidden, bias=False)

    def forward(self, hidden: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, attend: Attend) -> torch.Tensor:
        """hidden: [T, H]."""
        projected = self.query_key_value(self.attention_norm(hidden)).split(self.widths, dim=-1)
        query, key, value = (part.unflatten(-1, (-1, self.head_size)) for part in projected)  # [T, heads, D]
        query = _rotate(self.query_norm(query), cosine, sine)
        key = _rotate(self.key_norm(key), cosine, sine)
        hidden = hidden + self.attention_output(attend(self.index, query, key, value).flatten(1))
        gate, up = self.gate_up(self.mlp_norm(hidden)).chunk(2, dim=-1)  # [T, I] each
        activated: torch.Tensor = hidden + self.down(F.silu(gate) * up)
        return activated

    def published_parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        query, key, value = self.query_key_value.weight.split(self.widths)
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
