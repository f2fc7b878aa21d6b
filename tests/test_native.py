"""The compiled forward pass: against the slow one, against itself, and who gets it."""

import ctypes
import dataclasses
import random
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from transformers import Qwen3ForCausalLM

from inference_server.engine.model_loader import LoadedModel, read_config, read_weights
from inference_server.engine.models.qwen3 import Layer
from inference_server.engine.native.choice import difference_from_reference
from inference_server.engine.native.library import BLOCK, Library, available_variants
from inference_server.engine.native.runner import NativeRunner
from inference_server.engine.native.weights import PackedWeights
from inference_server.engine.types import NO_SAMPLING, Chunk, Computed, Sequence
from tests.checkpoints import Shape, write_checkpoint
from tests.mixes import Mixes
from tests.model_engine import NativeModel, load

SHAPE = Shape(hidden=64, heads=6, key_value_heads=2, head_size=32, dtype="bfloat16")
SHAPES = {
    "grouped heads": SHAPE,
    "all heads have keys, untied": dataclasses.replace(SHAPE, heads=2, head_size=64, tied=False),
    "heads of four panels": dataclasses.replace(SHAPE, heads=4, head_size=128),
    "heads of three panels": dataclasses.replace(SHAPE, heads=4, head_size=96),
    "heads of eight panels": dataclasses.replace(SHAPE, heads=3, key_value_heads=1, head_size=256),
    "wide, so that one row meets several panels at once": dataclasses.replace(SHAPE, hidden=512, intermediate=256),
    "more heads to a key head than a tile has rows": dataclasses.replace(SHAPE, heads=14, key_value_heads=1),
}
VARIANTS = available_variants()
BLOCKS = 50
needs_code = pytest.mark.skipif(not VARIANTS, reason="nothing is compiled for this processor")


def model_of(directory: Path, shape: Shape = SHAPE) -> LoadedModel:
    write_checkpoint(directory, shape)
    return load(directory)


def native_of(directory: Path, variant: str, shape: Shape = SHAPE) -> NativeModel:
    return NativeModel(PackedWeights.of(model_of(directory, shape), Library(variant)))


def sequences(count: int, length: int, block_seed: int = 0) -> list[Sequence]:
    """Always the same; their blocks lie anywhere."""
    rng, width = random.Random(0), -(-length // BLOCK)
    blocks = random.Random(block_seed).sample(range(1, BLOCKS), count * width)
    prompts = [tuple(rng.choices(range(300), k=length)) for _ in range(count)]
    return [
        Sequence(prompt, NO_SAMPLING, block_ids=blocks[index * width : (index + 1) * width])
        for index, prompt in enumerate(prompts)
    ]


@needs_code
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_agrees_with_the_slow_path(variant: str) -> None:
    assert difference_from_reference(Library(variant)) < (0.1 if variant == "avx512bf16" else 0.03)


@needs_code
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_no_further_from_float32_than_those_of_transformers(variant: str, name: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, SHAPES[name])
    (sequence,) = sequences(1, 300)
    prompt = torch.tensor([sequence.prompt_token_ids])
    with torch.inference_mode():
        # read anew: a model that was converted has rounded frequencies, and is wrong by more the longer a prompt is
        rounded, exact = (
            Qwen3ForCausalLM.from_pretrained(tmp_path, dtype=dtype).eval()(prompt).logits[0].float()
            for dtype in (torch.bfloat16, torch.float32)
        )
    usual = (rounded - exact).abs().max()
    assert usual < exact.std() / 2
    runner = NativeRunner(PackedWeights.of(load(tmp_path), Library(variant)), BLOCKS)
    for start, count in ((0, 1), (1, 70), (71, 78), (149, 110), (259, 1), (260, 39), (299, 1)):
        seen = runner.forward([Chunk(sequence, start, count)]).logits[0].float()
        assert (seen - exact[start + count - 1]).abs().max() <= usual, (start, count)


@needs_code
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_the_same_bits_however_a_prompt_is_divided_and_whatever_is_beside_it(
    variant: str, threads: int, tmp_path: Path
) -> None:
    native = native_of(tmp_path, variant)
    alone = NativeRunner(native.weights, BLOCKS)
    together = NativeRunner(native.weights, BLOCKS)
    length = 290  # attention takes eight blocks at once, and then those that are left
    together._cache.normal_()  # what other sequences have left there
    mine = sequences(4, length, block_seed=1)
    expected = [alone.forward([Chunk(sequence, 0, length)]).logits[0].clone() for sequence in sequences(4, length)]
    rng = random.Random(2)
    torch.set_num_threads(threads)
    try:
        computed, ends = [0] * len(mine), [torch.empty(0)] * len(mine)
        while any(count < length for count in computed):
            chunks = [
                Chunk(sequence, begin, rng.choice([1, 1, min(rng.randint(1, 60), length - begin)]))
                for sequence, begin in zip(mine, computed, strict=True)
                if begin < length and rng.random() < 0.8
            ]
            if not chunks:
                continue
            rng.shuffle(chunks)
            for chunk, row in zip(chunks, together.forward(chunks).logits, strict=True):
                index = mine.index(chunk.sequence)
                computed[index], ends[index] = chunk.start + chunk.count, row.clone()
        at_once = together.forward([Chunk(sequence, 0, length) for sequence in sequences(4, length)]).logits
    finally:
        torch.set_num_threads(1)
    for seen, wanted in zip([*ends, *at_once], [*expected, *expected], strict=True):
        assert torch.equal(seen, wanted)


@needs_code
def test_answers_in_bfloat16_are_the_same_whatever_else_is_served(tmp_path: Path) -> None:
    run_mixes(native_of(tmp_path, VARIANTS[0]), 40)


@needs_code
@pytest.mark.slow
def test_answers_in_bfloat16_are_the_same_whatever_else_is_served_many_times(tmp_path: Path) -> None:
    run_mixes(native_of(tmp_path, VARIANTS[0]), 1000)


def run_mixes(model: NativeModel, count: int) -> None:
    mixes = Mixes(model)
    for seed in range(count):
        mixes.run(seed)
    print(dict(mixes.counts))
    assert mixes.counts["near ties"] == 0
    assert all(mixes.counts[what] for what in ("cancelled", "preempted", "cached_tokens", "resumed", "logprobs"))


@needs_code
def test_mixes_find_code_that_depends_on_what_is_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, forward = native_of(tmp_path, VARIANTS[0]), NativeRunner.forward

    def swapped(runner: NativeRunner, chunks: list[Chunk], keep_logits: bool) -> Computed:
        computed = forward(runner, chunks, keep_logits)
        tokens = computed.likeliest
        return Computed([*tokens[1:], tokens[0]], computed.logits.roll(-1, dims=0))

    monkeypatch.setattr(NativeRunner, "forward", swapped)
    with pytest.raises(AssertionError):
        run_mixes(model, 20)


@needs_code
def test_what_is_not_finite_stays_its_sequences_own_and_can_be_cleared(tmp_path: Path) -> None:
    native = native_of(tmp_path, VARIANTS[0])
    runner = NativeRunner(native.weights, BLOCKS)
    ill, well, later = sequences(3, 40)
    expected = NativeRunner(native.weights, BLOCKS).forward([Chunk(well, 0, 40)]).logits
    runner._cache[:, :, ill.block_ids] = float("nan")
    seen = runner.forward([Chunk(ill, 35, 5), Chunk(well, 0, 40)])
    assert seen.logits[0].isnan().all()
    assert seen.likeliest[0] is None
    assert torch.equal(seen.logits[1:], expected)
    assert seen.likeliest[1] is not None
    runner.clear(ill.block_ids)
    again = Sequence(later.prompt_token_ids, NO_SAMPLING, block_ids=ill.block_ids)
    assert runner.forward([Chunk(again, 0, 5)]).logits.isfinite().all()


@needs_code
def test_probe_refuses_weights_that_are_not_finite(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    model.module.norm.weight.data[3] = float("nan")
    runner = NativeRunner(PackedWeights.of(model, Library(VARIANTS[0])), BLOCKS)
    with pytest.raises(RuntimeError, match="not finite"):
        runner.warm_up()


@needs_code
def test_threads_that_openmp_does_not_give_are_not_waited_for(tmp_path: Path) -> None:
    """Without OpenMP the caller's thread does it all, however many torch would have."""
    native = native_of(tmp_path, VARIANTS[0])
    (sequence,) = sequences(1, 50)
    runner = NativeRunner(native.weights, BLOCKS)
    torch.set_num_threads(4)
    try:
        expected = runner.forward([Chunk(sequence, 0, 50)]).logits.clone()
        native.weights.library._parallel = None
        assert torch.equal(runner.forward([Chunk(sequence, 0, 50)]).logits, expected)
    finally:
        torch.set_num_threads(1)


@needs_code
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_weights_are_read_to_where_the_slow_way_puts_them(variant: str, tied: bool, dtype: str, tmp_path: Path) -> None:
    """The slow way: panel by panel, from the modules."""
    shape = dataclasses.replace(SHAPE, intermediate=112, vocabulary=77, tied=tied, dtype=dtype, shards=2)
    write_checkpoint(tmp_path, shape)
    module, config = load(tmp_path, "bfloat16").module, read_config(tmp_path)
    packed = PackedWeights(config, Library(variant))
    read_weights(packed.places, tmp_path, config, lambda share: None)
    parts, layer = packed.layers[1], module.layers[1]
    assert isinstance(layer, Layer)
    gate, up = layer.gate_up.weight.unflatten(0, (2, -1, BLOCK // 2))
    for address, weight in (
        (parts.query_key_value, layer.query_key_value.weight),
        (parts.attention_output, layer.attention_output.weight),
        (parts.gate_up, torch.stack((gate, up), dim=1).flatten(0, 2)),
        (parts.down, layer.down.weight),
        (packed.parts.output, module.output.weight),
    ):
        panels = functional.pad(weight, (0, 0, 0, -len(weight) % BLOCK)).unflatten(0, (-1, BLOCK))
        expected = panels.unflatten(2, (-1, 2)).transpose(1, 2).contiguous()  # [panels, pairs, columns, 2]
        assert bytes_at(address, expected.nbytes) == expected.view(torch.uint8).numpy().tobytes()
    for address, weight in ((packed.parts.norm, module.norm.weight), (parts.key_norm, layer.key_norm.weight)):
        assert bytes_at(address, 4 * len(weight)) == weight.float().detach().numpy().tobytes()
    table = module.embedding.weight.detach()
    assert bytes_at(packed.parts.embedding, table.nbytes) == table.view(torch.uint8).numpy().tobytes()


def bytes_at(address: int, count: int) -> bytes:
    return ctypes.string_at(address, count)
