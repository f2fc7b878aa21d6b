"""Draws through the compiled code are those of a full sort, and rounding never decides."""

import math
from collections.abc import Callable

import pytest
import torch

from inference_server.engine import draw
from inference_server.engine.native import choice
from inference_server.engine.native.choice import choose_draw, draws_as_the_reference
from inference_server.engine.native.draws import CompiledDraw
from inference_server.engine.native.library import Library, RowParts
from inference_server.engine.types import SamplingParams
from tests.sampling_reference import params, random_logits
from tests.test_native import VARIANTS, needs_code

pytestmark = needs_code

KINDS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "random": lambda logits: logits,
    "flat": lambda logits: logits / 30,
    "steep": lambda logits: logits * 40,
    "bfloat16": lambda logits: logits.bfloat16().float(),
    "halves": lambda logits: (logits * 2).round() / 2,
    "equal": torch.zeros_like,
    "mostly forbidden": lambda logits: logits.masked_fill(torch.arange(logits.shape[-1]) % 97 != 5, -torch.inf),
}
LIMITS = [(top_p, min_p) for top_p in (1.0, 0.999, 0.9, 0.5, 0.1, 1e-9, 0.0) for min_p in (0.0, 0.001, 0.2, 1.0)]


@pytest.fixture(params=VARIANTS)
def compiled(request: pytest.FixtureRequest) -> CompiledDraw:
    return CompiledDraw(Library(request.param))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vocabulary", [98, 3001])
def test_compiled_draws_are_those_of_a_full_sort(compiled: CompiledDraw, kind: str, vocabulary: int) -> None:
    logits = KINDS[kind](random_logits(4 * len(LIMITS), vocabulary, seed=7))
    own = [params(temperature=t, top_p=p, min_p=m) for t in (0.01, 0.7, 1.0, 2.0) for p, m in LIMITS]
    for keys in (range(len(own)), range(-(2**63), -(2**63) + len(own))):
        slow = [_slow(logits[[row]], own[row], keys[row]) for row in range(len(own))]
        assert compiled(logits, own, keys).tolist() == slow


def _slow(logits: torch.Tensor, own: SamplingParams, key: int) -> int:
    way = draw.draw_from_sorted if draw.has_limits(own) else draw.draw_from_all
    return int(way(logits, [own], [key]))


@pytest.mark.slow
def test_many_compiled_draws_are_those_of_a_full_sort(compiled: CompiledDraw) -> None:
    for seed in range(150):
        logits = random_logits(len(LIMITS), 20_011, seed=seed, ties=bool(seed % 2)) / (1 + seed % 5)
        own = [params(temperature=0.5 + seed % 3 / 2, top_p=p, min_p=m) for p, m in LIMITS]
        keys = range(1000 * seed, 1000 * seed + len(own))
        assert compiled(logits, own, keys).tolist() == [
            _slow(logits[[row]], own[row], keys[row]) for row in range(len(own))
        ]


def test_a_row_whose_best_logit_is_infinite_is_drawn_among_its_equals(compiled: CompiledDraw) -> None:
    logits = random_logits(1, 200)
    logits[0, [3, 150]] = torch.inf
    drawn = {int(compiled(logits, [params(top_p=0.9)], [key])) for key in range(40)}
    assert drawn == {3, 150}


def test_a_sum_that_lies_on_the_limit_is_left_to_the_slow_path() -> None:
    logits = torch.zeros(1, 64)
    row = RowParts(logits.data_ptr(), 64, 0.0, 1.0, 0.5, -math.inf, 0)
    undecided = decided = 0
    for key in range(400):
        row.key = key
        chosen = Library(VARIANTS[0]).draw((RowParts * 1)(row))[0]
        undecided, decided = undecided + (chosen == -1), decided + (chosen >= 0)
        assert chosen == -1 or chosen == _slow(logits, params(top_p=0.5), key if key < 2**63 else key - 2**64)
    assert undecided  # rank 32 has exactly half of the weight before it
    assert decided > 10 * undecided


def test_a_compiled_draw_that_differs_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = choose_draw(torch.device("cpu"))
    assert chosen
    assert draws_as_the_reference(chosen)
    draw_rows = Library.draw
    monkeypatch.setattr(Library, "draw", lambda self, rows: [max(0, token - 1) for token in draw_rows(self, rows)])
    assert choose_draw(torch.device("cpu")) is None
    assert f"the compiled draw for {VARIANTS[0]} differs" in caplog.text
    monkeypatch.setattr(choice, "available_variants", list)
    assert choose_draw(torch.device("cpu")) is None
