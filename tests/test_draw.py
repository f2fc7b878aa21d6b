"""Drawing: the fast way over the likeliest tokens gives what a full sort gives, ties included."""

import pytest
import torch

from inference_server.engine import draw
from tests.sampling_reference import params, random_logits


@pytest.mark.parametrize("kind", ["random", "bfloat16", "halves", "equal"])
@pytest.mark.parametrize("top_k", [1, 2, 20, 63, 300, 1024])
def test_drawing_from_the_likeliest_gives_the_tokens_of_a_full_sort(top_k: int, kind: str) -> None:
    logits = random_logits(24, 3000, seed=3, ties=kind == "bfloat16")
    logits = {"halves": (logits * 2).round() / 2, "equal": torch.zeros_like(logits)}.get(kind, logits)
    own = [
        params(top_k=[top_k, 20][i % 4 == 3], top_p=[1.0, 0.9][i % 2], min_p=[0, 0.01][i % 3 == 0]) for i in range(24)
    ]
    for keys in (range(24), range(-(2**63), -(2**63) + 24)):
        slow = draw.draw_from_sorted(logits, own, keys)
        assert draw.draw_from_likeliest(logits, own, keys).tolist() == slow.tolist()
        assert draw.draw(logits, own, keys).tolist() == slow.tolist()


def test_drawing_from_all_gives_the_tokens_of_a_full_sort() -> None:
    logits, own = random_logits(24, 3000), [params(temperature=[0.7, 1.5][i % 2]) for i in range(24)]
    slow = draw.draw_from_sorted(logits, own, range(24)).tolist()
    assert draw.draw_from_all(logits, own, range(24)).tolist() == slow
    assert len(set(slow)) > 12


def test_logits_that_differ_a_little_give_the_same_draws() -> None:
    noise = torch.randn(400, 3000, generator=torch.Generator().manual_seed(9)) * 1e-5
    logits, own = random_logits(400, 3000) / 2, [params(top_p=[1.0, 0.95][i % 2]) for i in range(400)]
    assert draw.draw(logits, own, range(400)).tolist() == draw.draw(logits + noise, own, range(400)).tolist()


@pytest.mark.parametrize("count", [1, 20, 300])
def test_the_likeliest_are_the_first_of_a_stable_sort(count: int) -> None:
    logits = (random_logits(8, 3000) * 4).round() / 4
    ordered, token_ids = logits.sort(dim=-1, descending=True, stable=True)
    values, found = draw.likeliest(logits, [count] * 8)
    assert torch.equal(found[:, :count], token_ids[:, :count])
    assert torch.equal(values[:, :count], ordered[:, :count])
