"""Where the model's training starts: random weights, with copying already laid out in the first two layers.

Names, cities and JSON rest on copying, and a model of this size finds it late: from random weights alone, repeating
random tokens was still not learned after 500 steps; from these it was after 120. So training begins with that.
"""

import math

import torch
from transformers import Qwen3ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention

_POSITION_FREQUENCIES = 3
_SHARPNESS = 2.0


def lay_out_copying(model: Qwen3ForCausalLM, rope_theta: float) -> None:
    """One head of the first layer carries the previous token; one of the second finds what followed it last time.

    All of it is trained further like any other weight. Source: induction heads, https://arxiv.org/abs/2209.11895.
    """
    with torch.no_grad():
        for layer in model.model.layers:
            _look_is_copy(layer.self_attn)
        embedding = model.model.embed_tokens.weight  # [V, H]
        basis = torch.nn.init.orthogonal_(torch.empty(embedding.shape[1], embedding.shape[1]))  # [H, H]
        width = model.config.head_dim
        constant, content, previous = basis[0], basis[width : 2 * width], basis[2 * width : 3 * width]
        # A part that all tokens share lets a head attend by position alone.
        embedding -= torch.outer(embedding @ constant, constant)
        embedding += embedding.norm(dim=1).mean() * constant
        first, second = model.model.layers[0].self_attn, model.model.layers[1].self_attn
        _attend_to_previous(first, constant, rope_theta)
        first.v_proj.weight[:width] = content
        first.o_proj.weight[:, :width] = previous.T
        second.q_proj.weight[:width] = content
        second.k_proj.weight[:width] = previous
        for attention in (first, second):
            attention.q_norm.weight.fill_(_SHARPNESS)


def _look_is_copy(attention: Qwen3Attention) -> None:
    """Makes the output projection the transpose of the value projection: a head adds what it looks at."""
    value = attention.v_proj.weight  # [key/value heads x D, H]
    torch.nn.init.orthogonal_(value)
    heads = value.view(-1, attention.head_dim, value.shape[1])
    shared = heads.repeat_interleave(attention.num_key_value_groups, dim=0)  # [query heads, D, H]
    attention.o_proj.weight.copy_(shared.reshape(-1, value.shape[1]).T / attention.num_key_value_groups)


def _attend_to_previous(attention: Qwen3Attention, constant: torch.Tensor, rope_theta: float) -> None:
    """Turns the query of head 0 back by one position against its key, in the fastest rotations."""
    width = attention.head_dim
    query, key = torch.zeros(width), torch.zeros(width)
    for pair in range(_POSITION_FREQUENCIES):
        angle = rope_theta ** (-2 * pair / width)
        key[pair] = 1.0
        query[pair], query[pair + width // 2] = math.cos(angle), -math.sin(angle)
    for projection, vector in ((attention.q_proj, query), (attention.k_proj, key)):
        projection.weight[:width] = 0.1 * projection.weight[:width] + torch.outer(vector, constant)
