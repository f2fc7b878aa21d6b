"""The likeliest token, which the compiled forward pass finds while it computes logits."""

import ctypes
import dataclasses
import random
import threading
from pathlib import Path

import pytest
import torch

from inference_server.engine.native.library import Library
from inference_server.engine.native.runner import NativeRunner
from inference_server.engine.native.weights import PackedWeights
from inference_server.engine.sampler import greedy_tokens
from inference_server.engine.types import NO_SAMPLING, Chunk, Sequence
from tests.test_native import BLOCKS, SHAPE, VARIANTS, model_of, needs_code, sequences


@needs_code
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("vocabulary", [5, 48, 64, 1003])
def test_the_likeliest_token_is_that_of_the_slow_path_with_logits_or_without(
    variant: str, threads: int, vocabulary: int, tmp_path: Path
) -> None:
    model, rng = model_of(tmp_path, dataclasses.replace(SHAPE, vocabulary=vocabulary, tied=False)), random.Random(0)
    output = model.module.output.weight.data
    output[:] = output[[rng.randrange(-(-vocabulary // 3)) for _ in range(vocabulary)]]  # many are equal
    runner = NativeRunner(PackedWeights.of(model, Library(variant)), 80)
    asked = [
        Sequence(tuple(rng.choices(range(vocabulary), k=9)), NO_SAMPLING, block_ids=[block]) for block in range(1, 71)
    ]
    chunks = [Chunk(sequence, 0, rng.randint(1, 9)) for sequence in asked]
    torch.set_num_threads(threads)
    try:
        for count in (1, 13, 70):
            seen = runner.forward(chunks[:count])
            assert seen.likeliest == greedy_tokens(seen.logits)
            unseen = runner.forward(chunks[:count], keep_logits=False)
            assert unseen.likeliest == seen.likeliest
            assert unseen.logits.shape == (0, vocabulary)
    finally:
        torch.set_num_threads(1)
    if vocabulary > 5:
        assert len(set(seen.likeliest)) > 5


@needs_code
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_thread_may_come_when_the_other_one_has_done_all_of_the_step(variant: str, tmp_path: Path) -> None:
    """It did its own half of each phase first and then the late one's: of equal logits the first still wins."""
    model, rng = model_of(tmp_path, dataclasses.replace(SHAPE, vocabulary=500, tied=False)), random.Random(0)
    output = model.module.output.weight.data
    output[:] = output[[rng.randrange(100) for _ in range(500)]]
    library = Library(variant)
    chunks = [Chunk(sequence, 0, 131) for sequence in sequences(7, 131)]
    expected = NativeRunner(PackedWeights.of(model, library), BLOCKS).forward(chunks)
    work_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    has_come, is_done = threading.Event(), threading.Event()

    def team_size() -> int:
        if threading.current_thread().name == "late":
            has_come.set()
            is_done.wait(60)
        return 2

    def parallel(work: int, argument: int, threads: int, flags: int) -> None:
        late = threading.Thread(target=work_type(work), args=(argument,), name="late")
        late.start()
        has_come.wait(60)  # it is the first thread, the half of the lower tokens is its own
        work_type(work)(argument)
        is_done.set()
        late.join()

    own_parallel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)(parallel)
    own_team_size = ctypes.CFUNCTYPE(ctypes.c_int)(team_size)
    library._parallel = ctypes.cast(own_parallel, ctypes.c_void_p).value
    library._team_size = ctypes.cast(own_team_size, ctypes.c_void_p).value
    torch.set_num_threads(2)
    try:
        seen = NativeRunner(PackedWeights.of(model, library), BLOCKS).forward(chunks)
    finally:
        torch.set_num_threads(1)
    assert has_come.is_set()
    assert torch.equal(seen.logits, expected.logits)
    assert seen.likeliest == expected.likeliest == greedy_tokens(seen.logits)


@needs_code
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("fault", [torch.nan, torch.inf, -torch.inf])
def test_a_logit_that_is_not_finite_is_seen_wherever_it_is(variant: str, fault: float, tmp_path: Path) -> None:
    sequence = Sequence((5, 6, 7), NO_SAMPLING, block_ids=[1])
    for token_id in (0, 40, 76):
        (tmp_path / f"{token_id}").mkdir()
        model = model_of(tmp_path / f"{token_id}", dataclasses.replace(SHAPE, vocabulary=77, tied=False))
        model.module.output.weight.data[token_id, 0] = fault
        runner = NativeRunner(PackedWeights.of(model, Library(variant)), BLOCKS)
        seen = runner.forward([Chunk(sequence, 0, 3)])
        assert seen.logits.isfinite().sum() == 76
        assert seen.logits[0, token_id].isnan() == (fault != fault)
        assert seen.likeliest == runner.forward([Chunk(sequence, 0, 3)], keep_logits=False).likeliest == [None]
