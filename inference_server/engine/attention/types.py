"""What every attention offers to the model runner."""

from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import Protocol

import torch

from inference_server.engine.types import Chunk


@dataclass(frozen=True, slots=True)
class CacheShape:
    """The cache's tensors: `block_count` counts the scratch block too."""

    layer_count: int
    key_value_heads: int
    head_size: int
    block_count: int
    block_size: int
    dtype: torch.dtype
    device: torch.device


class Attention(Protocol):
    """Owns the cache's memory. Called by the engine's thread.

    is_capturable: whether `attend` reads nothing but tensors whose places never change, as a CUDA graph needs it.
    """

    is_capturable: bool

    def prepare(self, chunks: Rows[Chunk]) -> None:
        """Takes in which tokens the next calls of `attend` are about."""

    def attend(self, layer_index: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Stores the chunks' keys and values; each token sees all before it in its sequence, and itself.

        query: [T, Hq, D]; key, value: [T, Hkv, D], the chunks one behind the other. Returns [T, Hq, D]. Rows behind
        those of the chunks are nobody's: they are not stored, and what they see is finite.
        """

    def clear(self, block_ids: list[int]) -> None:
        """Overwrites blocks with zeros."""


def slots_of(chunks: Rows[Chunk], block_size: int) -> list[int]:
    """The place in the cache of each of the chunks' tokens: block times block size plus offset."""
    return [
        chunk.sequence.block_ids[place // block_size] * block_size + place % block_size
        for chunk in chunks
        for place in range(chunk.start, chunk.start + chunk.count)
    ]
