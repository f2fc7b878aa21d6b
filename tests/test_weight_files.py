"""Layouts of weight files that people have: read as transformers reads the same directory, or refused by name."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from inference_server.checkpoint.check import require_usable
from inference_server.engine.model_loader import build_model, module_places, read_config, read_weights
from inference_server.engine.native.library import Library, available_variants
from inference_server.engine.native.runner import NativeRunner
from inference_server.engine.native.weights import PackedWeights
from inference_server.engine.types import NO_SAMPLING, Chunk, Sequence
from inference_server.errors import StartupError
from tests.checkpoints import Shape, load_model, write_checkpoint
from tests.model_engine import all_logits

EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
SHAPE = Shape(hidden=64, heads=4, head_size=32)
UNTIED = dataclasses.replace(SHAPE, tied=False)
SHARDED = dataclasses.replace(SHAPE, shards=3)
SECOND_SHARD = "model-00002-of-00003.safetensors"
PROMPT = tuple(range(5, 45))
VARIANTS = available_variants()
Weights = dict[str, torch.Tensor]


def rewritten(change: Callable[[Weights], Weights | None]) -> Callable[[Path], None]:
    """What a layout does to the checkpoint's only file."""

    def rewrite(directory: Path) -> None:
        weights = load_file(directory / "model.safetensors")
        save_file(change(weights) or weights, directory / "model.safetensors", {"format": "pt"})

    return rewrite


def noise_like(weight: torch.Tensor) -> torch.Tensor:
    numbers = torch.randn(weight.shape, generator=torch.Generator().manual_seed(5))
    return (numbers * weight.float().std()).to(weight.dtype)


def own_output(weights: Weights) -> None:
    weights[OUTPUT] = noise_like(weights[EMBEDDING])


def output_that_differs_in_one_number(weights: Weights) -> None:
    weights[OUTPUT] = weights[EMBEDDING].clone()
    weights[OUTPUT][7] *= -3


def repeated_output(weights: Weights) -> None:
    weights[OUTPUT] = weights[EMBEDDING].clone()


def repeated_output_of_another_type(weights: Weights) -> None:
    weights[EMBEDDING] = weights[EMBEDDING].bfloat16()
    weights[OUTPUT] = weights[EMBEDDING].float()


def only_output(weights: Weights) -> None:
    weights[OUTPUT] = weights.pop(EMBEDDING)


def stored_frequencies(weights: Weights) -> None:
    for layer in range(SHAPE.layers):
        weights[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.rand(SHAPE.head_size // 2)
    weights["model.rotary_emb.inv_freq"] = torch.rand(SHAPE.head_size // 2)


def base_model(weights: Weights) -> Weights:
    return {name.removeprefix("model."): weight for name, weight in weights.items()}


def base_model_with_its_own_output(weights: Weights) -> Weights:
    own_output(weights)
    return base_model(weights)


def mixed_types(weights: Weights) -> None:
    types = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
    for place, name in enumerate(sorted(weights)):
        weights[name] = weights[name].to(torch.float32 if "norm" in name else types[place % 4])


def stale_index(directory: Path) -> None:
    stale = {"metadata": {"total_size": 1}, "weight_map": {EMBEDDING: "model-00001-of-00002.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(stale))


def index_of_other_weights(directory: Path) -> None:
    stale_index(directory)
    weights = {name: noise_like(weight) for name, weight in load_file(directory / "model.safetensors").items()}
    save_file(weights, directory / "model-00001-of-00002.safetensors", {"format": "pt"})


def tensor_in_two_shards(directory: Path) -> None:
    """The same numbers in both."""
    everything: Weights = {}
    for shard in sorted(directory.glob("*.safetensors")):
        everything |= load_file(shard)
    weights = load_file(directory / SECOND_SHARD)
    repeated = next(name for name in everything if name not in weights)
    save_file(weights | {repeated: everything[repeated]}, directory / SECOND_SHARD, {"format": "pt"})


def index_without_metadata_of_some_shards(directory: Path) -> None:
    """transformers does not ask which weights an index names, only which files."""
    path = directory / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] = {shard: shard for shard in index["weight_map"].values()}
    path.write_text(json.dumps(index))


def no_dtype(directory: Path) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if "dtype" not in k}))


LAYOUTS: dict[str, tuple[Shape, Callable[[Path], None]]] = {
    "as published": (SHAPE, lambda directory: None),
    "tied, with an output of its own": (SHAPE, rewritten(own_output)),
    "tied, one row of the output differs": (SHAPE, rewritten(output_that_differs_in_one_number)),
    "tied, with its output repeated": (SHAPE, rewritten(repeated_output)),
    "tied, repeated in another type": (SHAPE, rewritten(repeated_output_of_another_type)),
    "tied, only the output": (SHAPE, rewritten(only_output)),
    "untied": (UNTIED, lambda directory: None),
    "stored frequencies": (SHAPE, rewritten(stored_frequencies)),
    "base model": (SHAPE, rewritten(base_model)),
    "base model with an output of its own": (SHAPE, rewritten(base_model_with_its_own_output)),
    "mixed types": (SHAPE, rewritten(mixed_types)),
    "whole file beside a stale index": (SHAPE, stale_index),
    "whole file beside other weights": (SHAPE, index_of_other_weights),
    "a tensor in two shards": (SHARDED, tensor_in_two_shards),
    "an index that names files alone": (SHARDED, index_without_metadata_of_some_shards),
    "no type in config.json": (SHAPE, no_dtype),
}


def written(directory: Path, layout: str, dtype: str) -> None:
    shape, change = LAYOUTS[layout]
    write_checkpoint(directory, dataclasses.replace(shape, dtype=dtype))
    change(directory)
    require_usable(str(directory))


def reference(directory: Path) -> Any:
    """transformers' model."""
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


@torch.inference_mode()
def reference_logits(directory: Path) -> torch.Tensor:
    """[T, V] float32, of the numbers as they are stored."""
    logits: torch.Tensor = reference(directory)(torch.tensor([PROMPT])).logits[0]
    return logits


@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_are_those_of_transformers_over_the_same_files(layout: str, tmp_path: Path) -> None:
    written(tmp_path, layout, "float32")
    torch.set_num_threads(1)
    model = load_model(tmp_path, read_config(tmp_path), "cpu", "float32", lambda share: None)
    torch.testing.assert_close(all_logits(model, PROMPT), reference_logits(tmp_path), rtol=0, atol=1e-4)


@pytest.mark.skipif(not VARIANTS, reason="nothing is compiled for this processor")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_compiled_code_reads_every_layout_as_transformers_does(layout: str, tmp_path: Path) -> None:
    written(tmp_path, layout, "bfloat16")
    torch.set_num_threads(1)
    config = read_config(tmp_path)
    packed = PackedWeights(config, Library(VARIANTS[0]))
    read_weights(packed.places, tmp_path, config, lambda share: None)
    sequence = Sequence(PROMPT, NO_SAMPLING, block_ids=[1, 2])
    seen = NativeRunner(packed, 3).forward([Chunk(sequence, 0, len(PROMPT))]).logits[0].float()
    expected = reference_logits(tmp_path)[-1]
    assert torch.nn.functional.cosine_similarity(seen, expected, dim=0) > 0.999


@pytest.mark.parametrize("layout", ["tied, with an output of its own", "base model", "mixed types"])
def test_greedy_answers_are_those_of_transformers_generate(layout: str, tmp_path: Path) -> None:
    written(tmp_path, layout, "float32")
    whole = torch.tensor([PROMPT])
    with torch.inference_mode():
        told = reference(tmp_path).generate(whole, max_new_tokens=24, do_sample=False, eos_token_id=[], pad_token_id=0)
    model = load_model(tmp_path, read_config(tmp_path), "cpu", "float32", lambda share: None)
    answer: list[int] = []
    for _ in range(24):
        answer.append(int(all_logits(model, [*PROMPT, *answer])[-1].argmax()))
    assert answer == told[0, len(PROMPT) :].tolist()


def test_shards_without_an_index_are_read_as_with_it(tmp_path: Path) -> None:
    """transformers wants the index, so it says what is right while the index is there."""
    write_checkpoint(tmp_path, SHARDED)
    expected = reference_logits(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    require_usable(str(tmp_path))
    model = load_model(tmp_path, read_config(tmp_path), "cpu", "float32", lambda share: None)
    torch.testing.assert_close(all_logits(model, PROMPT), expected, rtol=0, atol=1e-4)


def test_type_of_the_weights_counts_where_config_json_says_none(tmp_path: Path) -> None:
    written(tmp_path, "no type in config.json", "bfloat16")
    assert AutoModelForCausalLM.from_pretrained(tmp_path).dtype is torch.bfloat16
    config = read_config(tmp_path)
    assert build_model(tmp_path, config, "cpu", "auto").dtype is torch.bfloat16


def test_a_tied_output_takes_no_second_memory(tmp_path: Path) -> None:
    for layout in ("tied, with its output repeated", "tied, only the output"):
        directory = tmp_path / layout
        directory.mkdir()
        written(directory, layout, "float32")
        model = build_model(directory, read_config(directory), "cpu", "auto")
        assert OUTPUT not in module_places(model)
        assert model.module.output.weight is model.module.embedding.weight


def _without_output(directory: Path) -> None:
    rewritten(lambda weights: {name: weight for name, weight in weights.items() if name != OUTPUT})(directory)


def _other_numbers_in_two_shards(directory: Path) -> None:
    tensor_in_two_shards(directory)
    weights = load_file(directory / SECOND_SHARD)
    save_file({name: noise_like(w) for name, w in weights.items()}, directory / SECOND_SHARD, {"format": "pt"})


def _names_with_and_without_prefix(weights: Weights) -> None:
    weights["embed_tokens.weight"] = noise_like(weights[EMBEDDING])


def _shard_lost(directory: Path) -> None:
    (directory / "model.safetensors.index.json").unlink()
    (directory / SECOND_SHARD).unlink()


def _shards_of_two_checkpoints(directory: Path) -> None:
    (directory / "model.safetensors.index.json").unlink()
    shutil.copy(directory / SECOND_SHARD, directory / "model-00001-of-00002.safetensors")


def _adapter_weights(weights: Weights) -> None:
    weights["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"] = torch.zeros(8, 64)


REFUSED: dict[str, tuple[Shape, Callable[[Path], None], str]] = {
    "untied without its output": (UNTIED, _without_output, "1 weights are missing, lm_head.weight"),
    "two shards disagree": (SHARDED, _other_numbers_in_two_shards, f"{SECOND_SHARD}, with different numbers"),
    "names with and without prefix": (SHAPE, rewritten(_names_with_and_without_prefix), "there twice"),
    "a shard is lost with the index": (SHARDED, _shard_lost, f"{SECOND_SHARD} is missing"),
    "shards of two checkpoints": (SHARDED, _shards_of_two_checkpoints, "shards of several checkpoints"),
    "an adapter's weights": (SHAPE, rewritten(_adapter_weights), "unexpected weight base_model"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_weights_that_do_not_say_what_they_mean_are_refused(kind: str, tmp_path: Path) -> None:
    shape, change, said = REFUSED[kind]
    write_checkpoint(tmp_path, shape)
    change(tmp_path)
    with pytest.raises(StartupError, match=said):
        load_model(tmp_path, read_config(tmp_path), "cpu", "auto", lambda share: None)
