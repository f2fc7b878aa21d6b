"""The reference: gathers each sequence's keys and values into a copy and attends under an explicit mask.

Runs on every device. Tests compare the fast ones with it; CUDA uses it where torch has no paged attention.
"""

from collections.abc import Sequence as Rows

import torch
import torch.nn.functional as F

from inference_server.engine.attention.types import CacheShape, slots_of
from inference_server.engine.types import Chunk

_QUERIES_AT_ONCE = 128  # bounds the mask, and the scores where a device computes them whole


class GatheredAttention:
    """Keys and values lie by slot: [layers, 2, slots, Hkv, D]."""

    is_capturable = False

    def __init__(self, shape: CacheShape) -> None:
        slot_count = shape.block_count * shape.block_size
        sizes = (shape.layer_count, 2, slot_count, shape.key_value_heads, shape.head_size)
        self._cache = torch.zeros(sizes, dtype=shape.dtype, device=shape.device)
        self._shape = shape
        self._slots = torch.empty(0, dtype=torch.int64)
        self._seen: list[tuple[Chunk, torch.Tensor]] = []  # each chunk with the slots of its sequence up to its end

    def prepare(self, chunks: Rows[Chunk]) -> None:
        self._slots = self._tensor(slots_of(chunks, self._shape.block_size))  # [T]
        self._seen = []
        for chunk in chunks:
            whole = Chunk(chunk.sequence, 0, chunk.start + chunk.count)
            self._seen.append((chunk, self._tensor(slots_of([whole], self._shape.block_size))))

    def attend(self, layer_index: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        stored = self._cache[layer_index]  # [2, slots, Hkv, D]
        stored[0, self._slots] = key
        stored[1, self._slots] = value
        parts, begin = [], 0
        for chunk, slots in self._seen:
            keys, values = stored[:, slots].transpose(1, 2).unsqueeze(1)  # [1, Hkv, end, D] each
            for first in range(0, chunk.count, _QUERIES_AT_ONCE):
                last = min(first + _QUERIES_AT_ONCE, chunk.count)
                parts.append(_attend(query[begin + first : begin + last], keys, values, chunk.start + first))
            begin += chunk.count
        return torch.cat(parts)

    def clear(self, block_ids: list[int]) -> None:
        blocks = self._cache.unflatten(2, (-1, self._shape.block_size))
        blocks[:, :, block_ids] = 0

    def _tensor(self, numbers: list[int]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self._shape.device)


def _attend(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, start: int) -> torch.Tensor:
    """query: [T, Hq, D], from place `start` on; keys, values: [1, Hkv, end, D]. Returns [T, Hq, D].

    The heads that share a key head are rows of one product, so that keys and values are not repeated for each.
    """
    count, key_heads, end = len(query), keys.shape[1], keys.shape[2]
    rows = query.unflatten(1, (key_heads, -1)).permute(1, 2, 0, 3)  # [Hkv, G, T, D]
    mask = torch.ones(count, end, dtype=torch.bool, device=query.device).tril(start).repeat(rows.shape[1], 1)
    seen = F.scaled_dot_product_attention(rows.flatten(1, 2)[None], keys, values, attn_mask=mask)  # [1, Hkv, G * T, D]
    by_token: torch.Tensor = seen[0].unflatten(1, (-1, count)).permute(2, 0, 1, 3)  # [T, Hkv, G, D]
    return by_token.flatten(1, 2)
