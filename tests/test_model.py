"""Our forward pass against transformers', on random checkpoints of several shapes."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from transformers import Qwen3ForCausalLM

from inference_server.engine.model_loader import LoadedModel, read_config
from inference_server.engine.models import qwen3
from tests.checkpoints import SHAPES, Shape, load_model, write_checkpoint
from tests.model_engine import ALONE, NO_PARAMS, SteppedEngine, all_logits, load, tokens_of

PROMPT = tuple(range(5, 36))


def greedy(model: LoadedModel, count: int = 64) -> list[int]:
    params = dataclasses.replace(NO_PARAMS, max_tokens=count, ignore_eos=True)
    return tokens_of(SteppedEngine(model, ALONE).answer(PROMPT, params))


def reference_greedy(reference: Qwen3ForCausalLM, count: int = 64) -> list[int]:
    """Every token from the whole sequence anew, without a cache."""
    token_ids = list(PROMPT)
    with torch.inference_mode():
        for _ in range(count):
            token_ids.append(int(reference(torch.tensor([token_ids])).logits[0, -1].argmax()))
    return token_ids[len(PROMPT) :]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_logits_and_greedy_tokens_are_those_of_transformers(shape: Shape, tmp_path: Path) -> None:
    reference = write_checkpoint(tmp_path, shape)
    assert len(list(tmp_path.glob("*.safetensors"))) == shape.shards
    model = load(tmp_path)
    with torch.inference_mode():
        expected = reference(torch.tensor([PROMPT])).logits[0]
    torch.testing.assert_close(all_logits(model, PROMPT), expected, rtol=0, atol=1e-4)
    answer = reference_greedy(reference)
    assert len(set(answer)) >= 10, "too few distinct tokens to tell models apart"
    assert greedy(model) == answer


def _wrong_theta(model: LoadedModel) -> None:
    model.module.rotary._base = 10_000.0


def _no_query_norm(model: LoadedModel) -> None:
    for layer in model.module.layers:
        layer.query_norm = torch.nn.Identity()


def _no_key_norm(model: LoadedModel) -> None:
    for layer in model.module.layers:
        layer.key_norm = torch.nn.Identity()


def _swapped_gate_and_up(model: LoadedModel) -> None:
    for layer in model.module.layers:
        assert isinstance(layer, qwen3.Layer)
        gate, up = layer.gate_up.weight.data.chunk(2)
        layer.gate_up.weight.data = torch.cat((up, gate))


@pytest.mark.parametrize("fault", [_wrong_theta, _no_query_norm, _no_key_norm, _swapped_gate_and_up])
def test_the_comparison_finds_a_faulty_forward_pass(fault: Callable[[LoadedModel], None], tmp_path: Path) -> None:
    reference = write_checkpoint(tmp_path, Shape())
    model = load(tmp_path)
    fault(model)
    with torch.inference_mode():
        expected = reference(torch.tensor([PROMPT])).logits[0]
        assert (all_logits(model, PROMPT) - expected).abs().max() > 1e-2
    assert greedy(model) != reference_greedy(reference)


def test_bfloat16_is_close_to_transformers(tmp_path: Path) -> None:
    reference = write_checkpoint(tmp_path, dataclasses.replace(Shape(), dtype="bfloat16"))
    model = load(tmp_path)
    assert model.dtype is torch.bfloat16
    with torch.inference_mode():
        expected = reference(torch.tensor([PROMPT])).logits[0].float()
    ours = all_logits(model, PROMPT).float()
    assert functional.cosine_similarity(ours, expected, dim=-1).min() > 0.999


def test_progress_ends_at_one_and_never_falls(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, Shape(shards=3))
    shares: list[float] = []
    load_model(tmp_path, read_config(tmp_path), "cpu", "auto", shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(shares) > 10
