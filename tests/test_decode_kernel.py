"""The CPU's kernel for decode tokens against the reference that gathers, and when it is chosen."""

import ctypes
import random

import pytest
import torch

from inference_server.engine.attention import decode_choice, decode_kernel
from inference_server.engine.attention.decode_choice import choose_decode_kernel
from inference_server.engine.attention.decode_kernel import DecodeKernel
from inference_server.engine.attention.gathered import GatheredAttention
from inference_server.engine.attention.in_place import InPlaceAttention
from inference_server.engine.attention.types import CacheShape
from inference_server.engine.types import NO_SAMPLING, Chunk, Sequence

LENGTHS = (1, 2, 3, 16, 17, 31, 64, 100, 257)
BLOCKS = 600


def shape_of(key_heads: int = 2, head_size: int = 64, block_size: int = 16) -> CacheShape:
    return CacheShape(1, key_heads, head_size, BLOCKS, block_size, torch.bfloat16, torch.device("cpu"))


def chunks_of(lengths: tuple[int, ...], block_size: int, count: int = 1) -> list[Chunk]:
    """The last tokens of sequences whose blocks lie anyhow."""
    blocks = list(range(BLOCKS))
    random.Random(0).shuffle(blocks)
    chunks = []
    for length in lengths:
        taken = [blocks.pop() for _ in range(-(-length // block_size))]
        new = min(count, length)
        chunks.append(Chunk(Sequence((0,) * length, NO_SAMPLING, block_ids=taken), length - new, new))
    return chunks


def heads_of(rows: int, shape: CacheShape, query_heads: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    counts = (query_heads, shape.key_value_heads, shape.key_value_heads)
    return [torch.randn(rows, count, shape.head_size, generator=generator).bfloat16() for count in counts]


def attentions(shape: CacheShape, query_heads: int) -> tuple[InPlaceAttention, GatheredAttention]:
    """Over the same keys and values, the reference in float32."""
    kernel = DecodeKernel(query_heads, shape.key_value_heads, shape.head_size, shape.block_size)
    fast, slow = InPlaceAttention(shape, kernel), GatheredAttention(shape)
    fast._cache.copy_(torch.randn(fast._cache.shape, generator=torch.Generator().manual_seed(1)))
    slow._cache = fast._cache.transpose(2, 3).float()
    return fast, slow


def largest_difference(
    fast: InPlaceAttention, slow: GatheredAttention, chunks: list[Chunk], parts: list[torch.Tensor]
) -> float:
    fast.prepare(chunks)
    slow.prepare(chunks)
    return float((fast.attend(0, *parts) - slow.attend(0, *(part.float() for part in parts))).abs().max())


@pytest.mark.parametrize("group", [1, 2, 4, 7])
@pytest.mark.parametrize(("head_size", "block_size"), [(64, 16), (128, 16), (128, 256), (80, 4), (6, 1), (128, 6)])
def test_kernel_gives_what_gathering_gives(group: int, head_size: int, block_size: int) -> None:
    shape = shape_of(head_size=head_size, block_size=block_size)
    lengths = LENGTHS if block_size > 1 else LENGTHS[:-1]
    before = torch.get_num_threads()
    torch.set_num_threads(1 + group % 2)
    try:
        fast, slow = attentions(shape, 2 * group)
        parts = heads_of(len(lengths), shape, 2 * group)
        assert largest_difference(fast, slow, chunks_of(lengths, block_size), parts) < 8e-3  # outputs of up to 3
    finally:
        torch.set_num_threads(before)


def test_decode_tokens_among_prompts_give_what_gathering_gives() -> None:
    shape = shape_of()
    fast, slow = attentions(shape, 4)
    chunks = chunks_of((40, 33, 300, 7), 16, count=20)
    chunks[0] = Chunk(chunks[0].sequence, 39, 1)
    chunks[2] = Chunk(chunks[2].sequence, 299, 1)
    parts = heads_of(sum(chunk.count for chunk in chunks), shape, 4)
    assert largest_difference(fast, slow, chunks, parts) < 3e-2  # flash attention's prompts are the less exact


@pytest.mark.parametrize("fault", ["one key fewer", "another's block"])
def test_the_comparison_finds_a_wrong_place(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(kernel: DecodeKernel, tokens: list[tuple[int, int, list[int]]]) -> None:
        (row, count, blocks), *others = tokens
        wrong = (row, count - 1, blocks) if fault == "one key fewer" else (row, count, [*blocks[:-1], blocks[0]])
        right(kernel, [wrong, *others])

    right = DecodeKernel.prepare
    monkeypatch.setattr(DecodeKernel, "prepare", prepare)
    fast, slow = attentions(shape_of(), 4)
    assert largest_difference(fast, slow, chunks_of((90, 20), 16), heads_of(2, shape_of(), 4)) > 3e-2


def test_a_sequence_gets_the_same_bits_whatever_else_is_computed_and_wherever_it_lies() -> None:
    shape = shape_of()
    seen = []
    for blocks, others in (
        ([4, 5, 6, 7, 8, 9], ()),
        ([90, 17, 3, 55, 4, 12], (257, 5, 31)),
        ([8, 7, 6, 5, 4, 3], (1,)),
    ):
        kernel = DecodeKernel(4, 2, 64, 16)
        attention = InPlaceAttention(shape, kernel)
        sequence = Sequence((0,) * 91, NO_SAMPLING, block_ids=blocks)
        attention.prepare([Chunk(sequence, 0, 90)])
        attention.attend(0, *heads_of(90, shape, 4, seed=1))
        free = [block for block in range(100, BLOCKS)]
        beside = [
            Chunk(Sequence((0,) * n, NO_SAMPLING, block_ids=free[index * 20 :]), n - 1, 1)
            for index, n in enumerate(others)
        ]
        attention.prepare([*beside, Chunk(sequence, 90, 1)])
        own, strange = heads_of(1, shape, 4, seed=2), heads_of(len(others), shape, 4, seed=3)
        parts = [torch.cat(pair) for pair in zip(strange, own, strict=True)]
        seen.append(attention.attend(0, *parts)[-1])
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("has_kernel", [True, False])
def test_rows_behind_the_last_token_are_zero_and_not_stored(count: int, has_kernel: bool) -> None:
    shape = shape_of()
    attention = InPlaceAttention(shape, DecodeKernel(4, 2, 64, 16) if has_kernel else None)
    attention._cache.fill_(3)
    chunks = chunks_of((20, 40), 16, count)
    attention.prepare(chunks)
    seen = attention.attend(
        0, *(torch.nn.functional.pad(part, (0, 0, 0, 0, 0, 3)) + 1 for part in heads_of(2 * count, shape, 4))
    )
    assert seen.shape[0] == 2 * count + 3
    assert not seen[-3:].any()
    assert seen[: 2 * count].isfinite().all()
    stored = (attention._cache[0, 0, 0] != 3).any(dim=-1).sum()
    assert stored == 2 * count


def test_what_is_not_finite_shows_and_stays_in_its_sequence() -> None:
    for bad in (float("nan"), float("inf"), float("-inf")):
        attention, _ = attentions(shape_of(), 4)
        chunks = chunks_of((50, 50), 16)
        slot = chunks[0].sequence.block_ids[1] * 16 + 5
        attention._cache[0, 1, :, slot] = bad
        attention.prepare(chunks)
        seen = attention.attend(0, *heads_of(2, shape_of(), 4))
        assert not seen[0].isfinite().any()
        assert seen[1].isfinite().all()
        attention._cache[0, 1, :, slot] = 0
        attention._cache[0, 0, :, slot] = float("nan")
        seen = attention.attend(0, *heads_of(2, shape_of(), 4))
        assert not seen[0].isfinite().any()
        assert seen[1].isfinite().all()


def test_kernel_runs_where_torchs_threads_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda path: object())
    fast, slow = attentions(shape_of(), 4)
    assert largest_difference(fast, slow, chunks_of(LENGTHS, 16), heads_of(len(LENGTHS), shape_of(), 4)) < 8e-3


def test_kernel_is_chosen_where_it_is_faster_and_right(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(kernel: float, flash: float, difference: float = 0.0) -> None:
        answers = {True: (torch.tensor([difference]), kernel), False: (torch.zeros(1), flash)}
        monkeypatch.setattr(decode_choice, "_trial", lambda shape, heads, made: answers[made is not None])

    seconds(kernel=1, flash=2)
    assert isinstance(choose_decode_kernel(shape_of(), 4), DecodeKernel)
    seconds(kernel=2, flash=1)
    assert choose_decode_kernel(shape_of(), 4) is None
    seconds(kernel=1, flash=2, difference=0.1)
    assert choose_decode_kernel(shape_of(), 4) is None


def test_kernel_that_cannot_be_compiled_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(code: str) -> None:
        raise RuntimeError("no such target")

    monkeypatch.setattr(decode_kernel, "_compile", fail)
    assert choose_decode_kernel(shape_of(), 4) is None


@pytest.mark.parametrize("block_size", [16, 256])
def test_the_trial_runs_both(block_size: int) -> None:
    for kernel in (DecodeKernel(4, 2, 64, block_size), None):
        seen, seconds = decode_choice._trial(shape_of(block_size=block_size), 4, kernel)
        assert seen.isfinite().all()
        assert 0 < seconds < 1
