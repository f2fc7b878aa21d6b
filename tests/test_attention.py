"""Attention that reads in place against the reference that gathers, over blocks that lie anyhow."""

import random
from typing import Any

import pytest
import torch

from inference_server.engine.attention import paged
from inference_server.engine.attention.gathered import GatheredAttention
from inference_server.engine.attention.in_place import InPlaceAttention
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


def flash_attention_2(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, query_starts: torch.Tensor, key_starts: torch.Tensor,
    max_queries: int, max_keys: int, *, window_size: tuple[int, int], enable_gqa: bool, seqused_k: torch.Tensor,
    block_table: torch.Tensor, num_splits: int,
) -> torch.Tensor:  # fmt: skip
    """Stands for torch's on CUDA: refuses what FlashAttention 2 refuses, and reads through the table."""
    count, size = len(seqused_k), key.shape[1]
    for starts in (query_starts, key_starts):
        assert starts.dtype is torch.int32
        assert starts.shape == (count + 1,)
    assert size % 256 == 0
    assert block_table.dtype is seqused_k.dtype is torch.int32
    assert block_table.shape[1] * size >= max_keys >= int(seqused_k.max())
    assert max_queries >= int(query_starts.diff().max())
    assert torch.equal(key_starts.diff(), seqused_k)
    assert num_splits == 1
    assert window_size == (-1, 0) or max_queries == 1
    seen = []
    for row in range(count):
        length, begin, end = int(seqused_k[row]), int(query_starts[row]), int(query_starts[row + 1])
        keys, values = (part[block_table[row].long()].flatten(0, 1)[:length].transpose(0, 1) for part in (key, value))
        mask = torch.ones(end - begin, length, dtype=torch.bool).tril(length - (end - begin))
        heads_first = query[begin:end].transpose(0, 1)
        attended = torch.nn.functional.scaled_dot_product_attention(
            heads_first[None], keys[None], values[None], attn_mask=mask, enable_gqa=enable_gqa
        )
        seen.append(attended[0].transpose(0, 1))
    return torch.cat(seen)


def test_paged_attention_keeps_to_what_flash_attention_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged, "varlen_attn", flash_attention_2)
    assert paged.agrees_with_reference(shape_of(torch.float32, block_size=256), QUERY_HEADS)


def test_steps_over_tables_that_held_others_give_what_gathering_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged, "varlen_attn", flash_attention_2)
    shape = CacheShape(1, 2, 16, 9, 256, torch.float32, torch.device("cpu"))
    fast, slow = paged.PagedAttention(shape, 4, 600, 1024), GatheredAttention(shape)
    sequences = [Sequence(tuple(range(900)), NO_SAMPLING, block_ids=blocks) for blocks in ([5, 1, 3, 8], [2], [7, 4])]
    scratch = Sequence((0,), NO_SAMPLING, block_ids=[0])
    steps = [[(0, 500), (0, 90)], [(500, 300), (90, 1)], [(800, 1), (91, 1), (0, 300)], [(801, 1)], [(802, 1), (92, 1)]]
    for seed, step in enumerate(steps):
        chunks = [Chunk(sequence, *place) for sequence, place in zip(sequences, step, strict=False)]
        if seed == 4:
            chunks += [Chunk(scratch, 0, 1)] * 2  # as a padded step has them
        parts = [heads(chunks, count, torch.float32, 3 * seed + n) for n, count in enumerate((QUERY_HEADS, 2, 2))]
        seen = []
        for attention in (fast, slow):
            attention.prepare(chunks)
            seen.append(attention.attend(0, *parts))
        torch.testing.assert_close(seen[0][: len(step)], seen[1][: len(step)], rtol=0, atol=2e-6)


@pytest.mark.parametrize("fault", ["another's block", "a length too short"])
def test_the_check_at_the_start_finds_a_paged_attention_that_is_wrong(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*parts: Any, **named: Any) -> torch.Tensor:
        if fault == "another's block":
            named["block_table"] = named["block_table"].flip(0)
        else:
            named["seqused_k"] = torch.full_like(named["seqused_k"], int(named["seqused_k"].max()))
            parts = (*parts[:4], torch.cat((parts[4][:1], named["seqused_k"].cumsum(0).int())), *parts[5:])
        return flash_attention_2(*parts, **named)

    monkeypatch.setattr(paged, "varlen_attn", wrong)
    assert not paged.agrees_with_reference(shape_of(torch.float32, block_size=256), QUERY_HEADS)


def test_paged_attention_is_not_chosen_where_it_does_not_run() -> None:
    assert not paged.agrees_with_reference(shape_of(torch.bfloat16, block_size=256), QUERY_HEADS)
