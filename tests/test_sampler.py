"""Sampling: greedy is argmax, draws follow the distribution, a row's token does not depend on its neighbours."""

import pytest
import torch

from inference_server.engine.sampler import SamplingRow, sample
from inference_server.engine.types import SamplingParams


def row(temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0, seed: int = 0, position: int = 0) -> SamplingRow:
    return SamplingRow(SamplingParams(temperature, top_p, top_k, seed, max_tokens=1), position)


def random_logits(rows: int, vocabulary: int = 50, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("temperature", [0.0, 1e-320, 1e-9])
def test_temperature_zero_is_argmax(temperature: float) -> None:
    logits = random_logits(8)
    assert sample(logits, [row(temperature)] * 8) == logits.argmax(-1).tolist()


@pytest.mark.parametrize("limits", [{"top_k": 1}, {"top_p": 0.0}, {"top_p": 1e-9}])
def test_narrowest_limits_keep_the_likeliest_token(limits: dict[str, float]) -> None:
    logits = random_logits(50)
    rows = [row(2.0, seed=seed, **limits) for seed in range(50)]  # type: ignore[arg-type]
    assert sample(logits, rows) == logits.argmax(-1).tolist()


@pytest.mark.parametrize("limits", [{}, {"top_k": 5}, {"top_p": 0.6}, {"top_k": 8, "top_p": 0.8}, {"temperature": 0.5}])
def test_draws_follow_the_reference_distribution(limits: dict[str, float]) -> None:
    logits, count = random_logits(1, 20), 20_000
    rows = [row(seed=seed, **limits) for seed in range(count)]  # type: ignore[arg-type]
    drawn = torch.tensor(sample(logits.expand(count, -1), rows)).bincount(minlength=20) / count
    expected = reference_distribution(logits[0], rows[0].params)
    assert (drawn - expected).abs().max() < 0.015  # four standard deviations of a share of one half
    assert not drawn[expected == 0].any()


def reference_distribution(logits: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """Token by token, likeliest first."""
    order = sorted(range(len(logits)), key=lambda token_id: -float(logits[token_id]))
    kept = order[: params.top_k or None]
    weights = (logits[kept].double() / params.temperature).softmax(0)
    result, before = torch.zeros(len(logits), dtype=torch.float64), 0.0
    for token_id, weight in zip(kept, weights.tolist(), strict=True):
        if before < params.top_p or token_id == order[0]:
            result[token_id] = weight
        before += weight
    return (result / result.sum()).float()


def test_a_rows_token_does_not_depend_on_its_neighbours() -> None:
    logits = random_logits(64, 300)
    rows = [row([0.0, 0.7, 1.5][i % 3], [1.0, 0.9][i % 2], [0, 20][i % 2], seed=i, position=i) for i in range(64)]
    together = sample(logits, rows)
    assert together == [sample(logits[i : i + 1], [rows[i]])[0] for i in range(64)]
    mixed = torch.randperm(64, generator=torch.Generator().manual_seed(1)).tolist()
    assert sample(logits[mixed], [rows[i] for i in mixed]) == [together[i] for i in mixed]


def test_seed_and_position_make_the_draw() -> None:
    logits = torch.zeros(1, 1000)
    assert sample(logits, [row(seed=3, position=4)]) == sample(logits, [row(seed=3, position=4)])
    by_seed = {sample(logits, [row(seed=seed)])[0] for seed in range(20)}
    by_position = {sample(logits, [row(position=position)])[0] for position in range(20)}
    assert len(by_seed) > 15
    assert len(by_position) > 15


@pytest.mark.parametrize("seed", [-(2**63), 2**63 - 1])
def test_ends_of_the_seed_range_are_taken(seed: int) -> None:
    assert 0 <= sample(random_logits(1), [row(seed=seed)])[0] < 50
