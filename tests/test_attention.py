"""Attention that reads in place against the reference that gathers, over blocks that lie anyhow."""

import random

import pytest
import torch

from inference_server.engine.attention.gathered import GatheredAttention
from inference_server.engine.attention.in_place import InPlaceAttention
from inference_server.engine.attention.paged import agrees_with_reference
from inference_server.engine.attention.types import CacheShape
from inference_server.engine.types import NO_SAMPLING, Chunk, Sequence

QUERY_HEADS = 6


def shape_of(dtype: torch.dtype = torch.float32, block_size: int = 4, key_value_heads: int = 2) -> CacheShape:
    return CacheShape(2, key_value_heads, 16, 65, block_size, dtype, torch.device("cpu"))


def chunks_of(lengths: list[tuple[int, int]], block_size: int, scattered: bool) -> list[Chunk]:
    """(tokens before, tokens now) of each sequence, on blocks in order or in disorder."""
    blocks = list(range(1, 65))
    if scattered:
        random.Random(0).shuffle(blocks)
    chunks = []
    for start, count in lengths:
        needed = -(-(start + count) // block_size)
        taken, blocks = blocks[:needed], blocks[needed:]
        chunks.append(Chunk(Sequence(tuple(range(start + count)), NO_SAMPLING, block_ids=taken), start, count))
    return chunks


def heads(chunks: list[Chunk], count: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sum(chunk.count for chunk in chunks), count, 16, generator=generator).to(dtype)


@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("key_value_heads", [1, 2, 6])
@pytest.mark.parametrize("block_size", [1, 4])
def test_in_place_gives_what_gathering_gives(scattered: bool, key_value_heads: int, block_size: int) -> None:
    shape = shape_of(block_size=block_size, key_value_heads=key_value_heads)
    fast, slow = InPlaceAttention(shape), GatheredAttention(shape)
    total = [(0, 13), (0, 1), (0, 7), (0, 20), (0, 9)]
    history = chunks_of(total, block_size, scattered)
    later = [Chunk(chunk.sequence, chunk.start, chunk.count) for chunk in history]
    cuts = [(0, 5), (0, 1), (0, 7), (0, 8), (0, 8)], [(5, 8), None, None, (8, 12), (8, 1)]
    with torch.inference_mode():
        for step in cuts:
            chunks = [Chunk(c.sequence, *cut) for c, cut in zip(later, step, strict=True) if cut]
            for layer in range(2):
                query = heads(chunks, QUERY_HEADS, torch.float32, seed=layer)
                key, value = (heads(chunks, key_value_heads, torch.float32, seed=layer + n) for n in (10, 20))
                seen = []
                for attention in (fast, slow):
                    attention.prepare(chunks)
                    seen.append(attention.attend(layer, query, key, value))
                torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=2e-6)


@pytest.mark.parametrize("fault", ["one key fewer", "another's block"])
def test_the_comparison_finds_a_wrong_place(fault: str) -> None:
    fast, slow = InPlaceAttention(shape_of()), GatheredAttention(shape_of())
    chunks = chunks_of([(0, 9), (0, 9)], 4, scattered=True)
    parts = [heads(chunks, count, torch.float32, seed) for seed, count in enumerate((QUERY_HEADS, 2, 2))]
    for attention in (fast, slow):
        attention.prepare(chunks)
        attention.attend(0, *parts)
    decode = [Chunk(Sequence((*range(10),), NO_SAMPLING, block_ids=chunk.sequence.block_ids), 9, 1) for chunk in chunks]
    parts = [heads(decode, count, torch.float32, seed) for seed, count in enumerate((QUERY_HEADS, 2, 2))]
    slow.prepare(decode)
    fast.prepare(decode)
    if fault == "one key fewer":
        start, end = fast._spans[0].runs[-1]
        fast._spans[0].runs[-1] = (start, end - 1)
    else:
        fast._spans[0].runs[0], fast._spans[1].runs[0] = fast._spans[1].runs[0], fast._spans[0].runs[0]
    assert (fast.attend(0, *parts) - slow.attend(0, *parts)).abs().max() > 1e-2


def test_in_place_in_bfloat16_is_close_to_float32() -> None:
    results = []
    for dtype in (torch.bfloat16, torch.float32):
        attention = InPlaceAttention(shape_of(dtype))
        chunks = chunks_of([(0, 17), (0, 3)], 4, scattered=True)
        attention.prepare(chunks)
        parts = [heads(chunks, count, dtype, seed) for seed, count in enumerate((QUERY_HEADS, 2, 2))]
        results.append(attention.attend(0, *parts).float())
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=3e-2)


@pytest.mark.parametrize("kind", [InPlaceAttention, GatheredAttention])
def test_cleared_blocks_are_zero_and_their_neighbours_are_not(
    kind: type[InPlaceAttention] | type[GatheredAttention],
) -> None:
    attention = kind(shape_of())
    attention._cache.fill_(float("nan"))
    attention.clear([3, 5])
    finite = attention._cache.isfinite()
    assert finite.sum() == 2 * attention._cache.numel() // 65


def test_garbage_behind_a_sequences_end_does_not_matter() -> None:
    attention = InPlaceAttention(shape_of())
    attention._cache.fill_(float("nan"))
    chunks = chunks_of([(0, 5), (0, 2)], 4, scattered=True)
    attention.prepare(chunks)
    parts = [heads(chunks, count, torch.float32, seed) for seed, count in enumerate((QUERY_HEADS, 2, 2))]
    assert attention.attend(0, *parts).isfinite().all()


def test_paged_attention_is_not_chosen_where_it_does_not_run() -> None:
    assert not agrees_with_reference(shape_of(torch.bfloat16, block_size=256), QUERY_HEADS)
