"""How much memory the KV cache gets, and which attention reads it. Asked once, when the weights are loaded."""

import logging
from dataclasses import dataclass

import torch
from transformers.models.qwen3.configuration_qwen3 import Qwen3Config

from inference_server.engine.attention.gathered import GatheredAttention
from inference_server.engine.attention.in_place import InPlaceAttention
from inference_server.engine.attention.types import Attention, CacheShape
from inference_server.engine.device import free_bytes
from inference_server.engine.draw import ROWS_AT_ONCE
from inference_server.engine.model_loader import LoadedModel
from inference_server.errors import StartupError

_log = logging.getLogger(__name__)
GIB = 2**30
CPU_BLOCK_SIZE = 32
# FlashAttention 2, which torch uses before Hopper, wants multiples of 256.
# https://github.com/Dao-AILab/flash-attention/issues/1720
CUDA_BLOCK_SIZE = 256
_CPU_DEFAULT_BYTES = 4 * GIB
_CPU_DEFAULT_CONTEXTS = 8  # more than so many of the longest requests at once is not the CPU's business
_GRAPH_BYTES = GIB // 4  # CUDA graphs and what libraries set aside


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """What the settings say. kv_cache_gib: for the CPU; gpu_memory_fraction: of all memory of the GPU."""

    kv_cache_gib: float | None
    gpu_memory_fraction: float
    max_context_tokens: int | None
    max_sequences: int
    max_step_tokens: int


@dataclass(frozen=True, slots=True)
class CachePlan:
    """What comes of it. max_context_tokens: most tokens of one request."""

    block_count: int
    block_size: int
    max_context_tokens: int


def bytes_per_token(config: Qwen3Config, dtype: torch.dtype) -> int:
    """Keys and values of one token in all layers."""
    heads: int = config.num_key_value_heads or config.num_attention_heads
    return 2 * int(config.num_hidden_layers) * heads * int(config.head_dim) * dtype.itemsize


def working_bytes(config: Qwen3Config, dtype: torch.dtype, max_step_tokens: int, max_sequences: int) -> int:
    """What the largest step needs beside weights and cache: its widest layer, the logits and their sampling."""
    query_key_value = (config.num_attention_heads + 2 * (config.num_key_value_heads or 0)) * config.head_dim
    widest = 4 * config.hidden_size + max(4 * config.intermediate_size, 3 * query_key_value)
    tokens = max_step_tokens + max_sequences
    logits = max_sequences * config.vocab_size * (dtype.itemsize + 4 + 4)  # the last 4 hold the graphs' own
    sampling = max_sequences * config.vocab_size * 12  # counts for penalties, logprobs, rows that are picked
    sorting = min(max_sequences, ROWS_AT_ONCE) * config.vocab_size * 72  # measured: 70 bytes an entry
    return int(tokens * widest * dtype.itemsize + logits + sampling + sorting)


def cuda_cache_bytes(total_bytes: int, used_bytes: int, fraction: float, step_bytes: int) -> int:
    """used_bytes: everything that lies on the GPU already, weights and other programs included."""
    return int(total_bytes * fraction) - used_bytes - step_bytes - _GRAPH_BYTES


def plan_cache(model: LoadedModel, limits: CacheLimits) -> CachePlan:
    """Raises StartupError where the memory does not hold one request of the context that was asked for."""
    config, token_bytes = model.config, bytes_per_token(model.config, model.dtype)
    longest = limits.max_context_tokens or int(config.max_position_embeddings)
    if model.device.type == "cuda":
        block_size = CUDA_BLOCK_SIZE
        free, total = torch.cuda.mem_get_info()
        step_bytes = working_bytes(config, model.dtype, limits.max_step_tokens, limits.max_sequences)
        cache_bytes = cuda_cache_bytes(total, total - free, limits.gpu_memory_fraction, step_bytes)
    else:
        block_size = CPU_BLOCK_SIZE
        cache_bytes = _cpu_cache_bytes(limits.kv_cache_gib, longest * token_bytes)
    useful_blocks = limits.max_sequences * -(-longest // block_size)
    block_count = min(cache_bytes // (token_bytes * block_size) - 1, useful_blocks)  # one is the scratch block
    held_tokens = max(block_count, 0) * block_size
    if held_tokens < (limits.max_context_tokens or 1):
        raise StartupError(
            f"{_memory_flag(model.device)}: {max(cache_bytes, 0) / GIB:.2f} GiB of KV cache hold {held_tokens} tokens, "
            f"--max-context-tokens {limits.max_context_tokens or 1} needs {longest * token_bytes / GIB:.2f} GiB"
        )
    return CachePlan(block_count, block_size, min(longest, held_tokens))


def _cpu_cache_bytes(asked_gib: float | None, context_bytes: int) -> int:
    free = free_bytes(torch.device("cpu"))
    if asked_gib is None:
        return min(_CPU_DEFAULT_BYTES, free // 2, _CPU_DEFAULT_CONTEXTS * context_bytes)
    if asked_gib * GIB > free:
        raise StartupError(f"--kv-cache-gib: {asked_gib:g} GiB asked for, {free / GIB:.2f} GiB of memory are free")
    return int(asked_gib * GIB)


def _memory_flag(device: torch.device) -> str:
    return "--gpu-memory-fraction" if device.type == "cuda" else "--kv-cache-gib"


def make_attention(model: LoadedModel, plan: CachePlan, limits: CacheLimits) -> Attention:
    """The fastest attention that works on the model's device."""
    config = model.config
    shape = CacheShape(
        layer_count=config.num_hidden_layers,
        key_value_heads=config.num_key_value_heads or config.num_attention_heads,
        head_size=config.head_dim,
        block_count=plan.block_count + 1,
        block_size=plan.block_size,
        dtype=model.dtype,
        device=model.device,
    )
    if model.device.type != "cuda":
        return InPlaceAttention(shape)
    # it brings torch's compiler along, which takes a second and a half
    from inference_server.engine.attention.paged import PagedAttention, agrees_with_reference

    if agrees_with_reference(shape, config.num_attention_heads):
        step_tokens = limits.max_step_tokens + limits.max_sequences
        return PagedAttention(shape, limits.max_sequences, step_tokens, plan.max_context_tokens)
    _log.warning("this torch has no paged attention for this GPU: cache blocks are gathered in every step, slowly")
    return GatheredAttention(shape)
