"""Attention on CUDA: torch's flash attention reads the blocks through a block table.

The tables lie in tensors whose places never change, so that a CUDA graph that was captured over them can be replayed.
"""

import dataclasses
import inspect
import logging
from collections.abc import Sequence as Rows

import torch
from torch.nn.attention import current_flash_attention_impl
from torch.nn.attention.varlen import varlen_attn

from inference_server.engine.attention.gathered import GatheredAttention
from inference_server.engine.attention.types import Attention, CacheShape, slots_of
from inference_server.engine.types import NO_SAMPLING, Chunk, Sequence

_log = logging.getLogger(__name__)


def is_available() -> bool:
    """Whether this torch's attention takes a block table: 2.13 does, 2.11 does not."""
    return "block_table" in inspect.signature(varlen_attn).parameters


class PagedAttention:
    """Keys and values lie by block: [layers, 2, blocks, block size, Hkv, D]."""

    is_capturable = True

    def __init__(self, shape: CacheShape, max_chunks: int, max_step_tokens: int, max_context_tokens: int) -> None:
        device, size = shape.device, shape.block_size
        sizes = (shape.layer_count, 2, shape.block_count, size, shape.key_value_heads, shape.head_size)
        self._cache = torch.zeros(sizes, dtype=shape.dtype, device=device)
        self._block_size = size
        self._max_keys = max_context_tokens
        table_width = -(-max_context_tokens // size)
        self._block_table = torch.zeros(max_chunks, table_width, dtype=torch.int32, device=device)
        self._lengths = torch.zeros(max_chunks, dtype=torch.int32, device=device)
        self._query_starts = torch.zeros(max_chunks + 1, dtype=torch.int32, device=device)
        self._key_starts = torch.zeros(max_chunks + 1, dtype=torch.int32, device=device)
        self._slots = torch.zeros(max_step_tokens, dtype=torch.int64, device=device)
        self._chunk_count = self._max_queries = 0

    def prepare(self, chunks: Rows[Chunk]) -> None:
        counts = torch.tensor([chunk.count for chunk in chunks])
        lengths = torch.tensor([chunk.start + chunk.count for chunk in chunks])
        widest = max(len(chunk.sequence.block_ids) for chunk in chunks)
        table = torch.zeros(len(chunks), widest, dtype=torch.int32)
        for row, chunk in zip(table, chunks, strict=True):
            row[: len(chunk.sequence.block_ids)] = torch.tensor(chunk.sequence.block_ids, dtype=torch.int32)
        slots = torch.tensor(slots_of(chunks, self._block_size))
        self._block_table[: len(chunks), :widest].copy_(table)
        self._lengths[: len(chunks)].copy_(lengths)
        self._query_starts[1 : len(chunks) + 1].copy_(counts.cumsum(0))
        self._key_starts[1 : len(chunks) + 1].copy_(lengths.cumsum(0))
        self._slots[: len(slots)].copy_(slots)
        self._chunk_count, self._max_queries = len(chunks), int(counts.max())

    def attend(self, layer_index: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        keys, values = self._cache[layer_index]  # [blocks, block size, Hkv, D] each
        slots = self._slots[: len(query)]
        keys.flatten(0, 1).index_copy_(0, slots, key)
        values.flatten(0, 1).index_copy_(0, slots, value)
        count = self._chunk_count
        key_starts = None if _infers_key_starts() else self._key_starts[: count + 1]
        causal = (-1, 0)
        seen = varlen_attn(
            query, keys, values, self._query_starts[: count + 1], key_starts, self._max_queries, self._max_keys,
            # one query sees all keys either way, and without a window flash attention reads them once per key head
            window_size=causal if self._max_queries > 1 else (-1, -1),
            enable_gqa=True, seqused_k=self._lengths[:count], block_table=self._block_table[:count],
            # keys that are split over blocks of the GPU gave wrong sums: https://github.com/pytorch/pytorch/issues/194167
            num_splits=1,
        )  # fmt: skip
        assert isinstance(seen, torch.Tensor)
        return seen

    def clear(self, block_ids: list[int]) -> None:
        self._cache[:, :, block_ids] = 0


def _infers_key_starts() -> bool:
    """FlashAttention 2 wants them beside the lengths, its successors refuse them beside a block table."""
    return current_flash_attention_impl() in ("FA3", "FA4")


def agrees_with_reference(shape: CacheShape, query_heads: int) -> bool:
    """Whether paged attention works on the device and gives what the reference gives: prompts, decodes, and both."""
    if not is_available():
        return False
    size = shape.block_size
    small = dataclasses.replace(shape, layer_count=1, block_count=8)
    sequences = [Sequence(tuple(range(2 * size)), NO_SAMPLING, block_ids=blocks) for blocks in ([3, 1], [2, 7], [5, 4])]
    steps = [[(0, size + 5), (0, 3), (0, size)], [(size + 5, 1), (3, 1), (size, 1)], [(size + 6, 1), (4, 9)]]
    paged: Attention = PagedAttention(small, len(sequences), 3 * size, 2 * size)
    reference: Attention = GatheredAttention(small)
    generator = torch.Generator().manual_seed(0)
    for step in steps:
        chunks = [Chunk(sequence, *place) for sequence, place in zip(sequences, step, strict=False)]
        parts = [
            torch.randn(sum(chunk.count for chunk in chunks), heads, shape.head_size, generator=generator)
            for heads in (query_heads, shape.key_value_heads, shape.key_value_heads)
        ]
        if not _agree(paged, reference, chunks, [part.to(shape.device, shape.dtype) for part in parts]):
            return False
    return True


@torch.inference_mode()
def _agree(paged: Attention, reference: Attention, chunks: list[Chunk], parts: list[torch.Tensor]) -> bool:
    seen = []
    for attention in (paged, reference):
        attention.prepare(chunks)
        try:
            seen.append(attention.attend(0, *parts).float())
        except (RuntimeError, NotImplementedError) as error:
            _log.warning("paged attention does not run here: %s", error)
            return False
    if not torch.allclose(seen[0], seen[1], atol=2e-2):
        _log.warning("paged attention differs from its reference by %.3g", (seen[0] - seen[1]).abs().max())
        return False
    return True
