"""The memory plan: how many tokens the KV cache holds, on a card that is not here and on this machine."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Qwen3Config

from inference_server.engine import cache_memory
from inference_server.engine.cache_memory import (
    GIB,
    CacheLimits,
    bytes_per_token,
    cuda_cache_bytes,
    plan_cache,
    working_bytes,
)
from inference_server.engine.decode_graphs import ladder
from inference_server.engine.model_loader import LoadedModel
from inference_server.errors import StartupError

QWEN3_4B = Qwen3Config(
    vocab_size=151_936, hidden_size=2560, num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8,
    head_dim=128, intermediate_size=9728, tie_word_embeddings=True, max_position_embeddings=262_144,
)  # fmt: skip
WEIGHT_BYTES = 4_022_468_096 * 2
CARD_BYTES = 16_376 * 2**20  # what an RTX 4080 says of itself
OTHERS_BYTES = 500 * 2**20  # CUDA's context and the libraries' own


def model_of(config: Qwen3Config, device: str, dtype: torch.dtype = torch.bfloat16) -> LoadedModel:
    module: Any = SimpleNamespace()
    return LoadedModel(module, config, torch.device(device), dtype, layer_parameter_count=1)


def limits(
    gib: float | None = None, context: int | None = None, sequences: int = 128, fraction: float = 0.9
) -> CacheLimits:
    return CacheLimits(gib, fraction, context, sequences, max_step_tokens=512)


def test_a_token_of_qwen3_4b_takes_144_kib() -> None:
    assert bytes_per_token(QWEN3_4B, torch.bfloat16) == 144 * 1024


def test_a_16_gb_card_holds_40_000_tokens_beside_qwen3_4b() -> None:
    step_bytes = working_bytes(QWEN3_4B, torch.bfloat16, max_step_tokens=512, max_sequences=128)
    cache_bytes = cuda_cache_bytes(CARD_BYTES, WEIGHT_BYTES + OTHERS_BYTES, 0.9, step_bytes)
    tokens = cache_bytes // bytes_per_token(QWEN3_4B, torch.bfloat16)
    print(f"{step_bytes / 1e9:.2f} GB for a step, {cache_bytes / 1e9:.2f} GB for the cache: {tokens} tokens")
    assert tokens >= 40_000


def test_the_plan_for_a_card_is_in_blocks_of_its_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    free = CARD_BYTES - WEIGHT_BYTES - OTHERS_BYTES
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, CARD_BYTES))
    plan = plan_cache(model_of(QWEN3_4B, "cuda"), limits())
    assert plan.block_size == 256
    assert plan.block_count * 256 >= 40_000
    assert plan.max_context_tokens == plan.block_count * 256
    with pytest.raises(StartupError, match=r"--gpu-memory-fraction.*--max-context-tokens 100000 needs 13.73 GiB"):
        plan_cache(model_of(QWEN3_4B, "cuda"), limits(context=100_000))


def test_context_that_is_unset_is_what_one_request_can_have() -> None:
    plan = plan_cache(model_of(QWEN3_4B, "cpu"), limits(gib=0.5))
    assert plan.max_context_tokens == plan.block_count * plan.block_size
    assert plan.max_context_tokens == int(0.5 * GIB) // (144 * 1024 * 32) * 32 - 32
    small = Qwen3Config(num_hidden_layers=1, num_key_value_heads=1, head_dim=8, max_position_embeddings=1000)
    assert plan_cache(model_of(small, "cpu"), limits(gib=0.5)).max_context_tokens == 1000


def test_cache_is_no_larger_than_all_requests_can_use() -> None:
    small = Qwen3Config(num_hidden_layers=1, num_key_value_heads=1, head_dim=8, max_position_embeddings=1000)
    plan = plan_cache(model_of(small, "cpu"), limits(gib=0.5, sequences=2))
    assert plan.block_count == 2 * 32


def test_cpu_default_is_bounded_by_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_memory, "free_bytes", lambda device: GIB)
    plan = plan_cache(model_of(QWEN3_4B, "cpu"), limits())
    assert plan.block_count * plan.block_size * 144 * 1024 <= GIB // 2


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (limits(gib=0.001), "--kv-cache-gib: 0.00 GiB of KV cache hold 0 tokens"),
        (
            limits(gib=1.0, context=8000),
            "--kv-cache-gib: 1.00 GiB of KV cache hold 7232 tokens, --max-context-tokens 8000",
        ),
        (limits(gib=4000.0), "--kv-cache-gib: 4000 GiB asked for"),
    ],
)
def test_memory_that_does_not_do_is_told_in_one_line(asked: CacheLimits, message: str) -> None:
    with pytest.raises(StartupError, match=message):
        plan_cache(model_of(QWEN3_4B, "cpu"), asked)


@pytest.mark.parametrize("most", [1, 2, 3, 8, 20, 128, 1000])
def test_every_batch_has_a_graph_that_is_not_much_larger(most: int) -> None:
    sizes = ladder(most)
    assert sizes[-1] == most
    for count in range(1, most + 1):
        size = next(size for size in sizes if size >= count)
        assert size - count < max(count, 8)
