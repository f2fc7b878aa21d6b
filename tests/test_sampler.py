"""Sampling: every parameter does what a plain reference does, and a row's token does not depend on its neighbours."""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_server.engine.sampler import argmax
from inference_server.engine.types import Sequence
from tests.sampling_reference import (
    PENALTIES,
    VOCABULARY,
    assert_is_the_reference,
    params,
    random_logits,
    reference_logits,
    reference_probabilities,
    row,
    sample,
    sampled_ids,
)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    "named",
    [
        {},
        {"temperature": 0.0},
        {"temperature": 0.3},
        {"temperature": 2.0},
        {"top_k": 20},
        {"top_k": 150},
        {"top_p": 0.6},
        {"min_p": 0.1},
        {"min_p": 1.0},
        {"min_p": 0.02, "top_k": 20, "top_p": 0.9, "temperature": 1.5},
        {"repetition_penalty": 1.5},
        {"repetition_penalty": 0.7},
        {"presence_penalty": 1.5},
        {"frequency_penalty": -1.0},
        {"logit_bias": ((5, 4.0), (9, 6.5), (0, -100.0))},
        {"min_tokens": 4, "logit_bias": ((3, 9.0), (8, 9.0)), "stop_token_ids": frozenset({8})},
        {"min_tokens": 4, "logit_bias": ((3, 9.0), (8, 9.0)), "stop_token_ids": frozenset({8}), "ignore_eos": True},
        {"top_logprobs": 20},
        {"top_logprobs": 0, "temperature": 0.0} | PENALTIES,
    ],
)
def test_every_parameter_does_what_the_reference_does(named: dict[str, Any], ties: bool) -> None:
    logits = random_logits(40, seed=1, ties=ties)
    said = [[i, i, 7, 9, 30 + i][: i % 6] for i in range(40)]
    assert_is_the_reference(logits, [row([i, 11, 12, 60], said[i], seed=i, **named) for i in range(40)])


any_params = st.builds(
    params,
    temperature=st.sampled_from([0.0, 1e-4, 0.7, 1.0, 2.0]),
    top_p=st.sampled_from([0.0, 0.3, 0.8, 0.95, 1.0]),
    top_k=st.sampled_from([0, 1, 5, 20, 60, VOCABULARY, 2**31 - 1]),
    min_p=st.sampled_from([0.0, 0.0, 0.05, 0.5, 1.0]),
    seed=st.integers(-(2**63), 2**63 - 1),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.1, 0.5, 2.0]),
    presence_penalty=st.sampled_from([0.0, 0.0, 0.7, -2.0]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.3, 2.0]),
    logit_bias=st.sampled_from([(), (), ((1, 5.0), (3, 8.0)), ((199, 100.0),)]),
    min_tokens=st.sampled_from([0, 0, 3, 4]),
    stop_token_ids=st.sampled_from([frozenset[int](), frozenset({199})]),
    ignore_eos=st.booleans(),
    top_logprobs=st.sampled_from([None, None, 0, 5, 20]),
)
any_ids = st.lists(st.integers(0, VOCABULARY - 1), max_size=5)
any_rows = st.lists(st.builds(Sequence, any_ids.map(tuple), any_params, any_ids), min_size=1, max_size=8)


@given(any_rows, st.integers(0, 1000), st.booleans())
@settings(max_examples=100)
def test_rows_of_any_parameters_are_the_references_rows(rows: list[Sequence], seed: int, ties: bool) -> None:
    assert_is_the_reference(random_logits(len(rows), seed=seed, ties=ties), rows)


@given(any_rows, st.integers(0, 1000), st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_a_rows_token_does_not_depend_on_its_neighbours(
    rows: list[Sequence], seed: int, ties: bool, random: Any
) -> None:
    logits = random_logits(len(rows), seed=seed, ties=ties)
    together = sample(logits, rows)
    assert together == [sample(logits[i : i + 1], [one])[0] for i, one in enumerate(rows)]
    order = random.sample(range(len(rows)), len(rows))
    assert sample(logits[order], [rows[i] for i in order]) == [together[i] for i in order]


def test_more_rows_than_are_sorted_at_once_keep_their_tokens() -> None:
    logits = random_logits(80, seed=2)
    rows = [row(seed=i, top_p=[0.9, 1.0][i % 2]) for i in range(80)]
    assert sampled_ids(logits, rows) == [sampled_ids(logits[i : i + 1], [rows[i]])[0] for i in range(80)]


@pytest.mark.parametrize("temperature", [0.0, 1e-320, 1e-9])
def test_temperature_zero_is_argmax(temperature: float) -> None:
    logits = random_logits(8)
    assert sampled_ids(logits, [row(temperature=temperature)] * 8) == logits.argmax(-1).tolist()


@pytest.mark.parametrize(
    "limits", [{"top_k": 1}, {"top_p": 0.0}, {"top_p": 1e-9}, {"min_p": 1.0}, {"temperature": 0.0}]
)
def test_narrowest_limits_keep_the_likeliest_token_of_the_lowest_id(limits: dict[str, Any]) -> None:
    logits = random_logits(50)
    assert sampled_ids(logits, [row(seed=i, **limits) for i in range(50)]) == logits.argmax(-1).tolist()
    logits[:, [20, 90]] = 50.0
    lowest = {20, 90} if "min_p" in limits else {20}
    assert set(sampled_ids(logits, [row(seed=i, **limits) for i in range(50)])) == lowest


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"top_k": 5},
        {"top_p": 0.6},
        {"top_k": 8, "top_p": 0.8},
        {"min_p": 0.1},
        {"temperature": 0.5},
        PENALTIES,
        {"logit_bias": ((2, 3.0),), "min_tokens": 9},
    ],
)
def test_draws_follow_the_reference_distribution(named: dict[str, Any]) -> None:
    logits, count = random_logits(1, 20), 20_000
    rows = [row([1, 2], [5, 5, 7], seed=seed, **named) for seed in range(count)]
    drawn = torch.tensor(sampled_ids(logits.expand(count, -1), rows)).bincount(minlength=20) / count
    expected = torch.zeros(20)
    for token_id, probability in reference_probabilities(reference_logits(logits[0], rows[0]), rows[0].params).items():
        expected[token_id] = probability
    assert (drawn - expected).abs().max() < 0.015  # four standard deviations of a share of one half
    assert not drawn[expected == 0].any()


def test_seed_and_place_make_the_draw() -> None:
    logits = torch.zeros(1, 1000)
    assert sample(logits, [row(seed=3, said=[1, 2])]) == sample(logits, [row(seed=3, said=[8, 9])])
    by_seed = {sampled_ids(logits, [row(seed=seed)])[0] for seed in range(20)}
    by_place = {sampled_ids(logits, [row(said=range(place))])[0] for place in range(20)}
    by_prompt = {sampled_ids(logits, [row(range(length))])[0] for length in range(20)}
    assert len(by_seed) > 15
    assert len(by_place) > 15
    assert len(by_prompt) == 1


def test_a_vocabulary_of_real_size_is_sampled_as_the_reference_does() -> None:
    limits: list[dict[str, Any]] = [
        {"top_k": 20, "top_p": 0.8},
        {"top_k": 1024},
        {"top_p": 0.9},
        {},
        {"top_k": 2000},
        {"top_logprobs": 20},
    ]
    rows = [row(range(i), range(9), seed=i, **PENALTIES, **named) for i, named in enumerate(limits)]
    assert_is_the_reference(random_logits(6, 151_936, ties=True), rows)


@pytest.mark.parametrize("fault", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_not_finite_gives_none_and_leaves_its_neighbours_alone(fault: float) -> None:
    logits = random_logits(9)
    named: list[dict[str, Any]] = [{"temperature": 0.0}, {"top_k": 20, "top_logprobs": 3}, {"top_p": 0.7} | PENALTIES]
    rows = [row([1, 2], [3, 4, 5], seed=i, **named[i % 3]) for i in range(9)]
    whole = sample(logits, rows)
    logits[[1, 5, 6], [0, 100, 199]] = fault
    assert sample(logits, rows) == [None if i in (1, 5, 6) else token for i, token in enumerate(whole)]


@pytest.mark.parametrize("vocabulary", [1, 7, 128, 260, 151_936])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_argmax_in_blocks_is_argmax(vocabulary: int, dtype: torch.dtype) -> None:
    for logits in (
        torch.randn(5, vocabulary),
        torch.randint(-3, 3, (5, vocabulary)),
        torch.full((2, vocabulary), -2.0),
    ):
        first = logits.to(dtype).float().numpy().argmax(-1)
        assert argmax(logits.to(dtype)).tolist() == first.tolist()


@pytest.mark.parametrize("fault", [torch.nan, torch.inf, -torch.inf])
def test_bfloat16_logits_give_what_the_same_numbers_give_in_float32(fault: float) -> None:
    logits = torch.randn(6, 512).bfloat16()
    logits[4, 3] = fault
    rows = [
        row(seed=1),
        row(temperature=0.0),
        row(temperature=0.0, top_logprobs=3),
        row(logit_bias=((3, 5.0),)),
        row(temperature=0.0),
        row(min_tokens=9),
    ]
    assert sample(logits, rows) == sample(logits.float(), rows)


def test_a_batch_of_only_faults_and_an_empty_one_are_no_error() -> None:
    assert sample(torch.full((3, 9), math.nan), [row()] * 3) == [None] * 3
    assert sample(torch.zeros(0, 9), []) == []


def test_large_finite_logits_are_no_fault() -> None:
    logits = torch.full((2, 50), 3e38)
    assert all(sample(logits, [row(temperature=0.0), row(top_k=5, repetition_penalty=0.01, said=[1])]))


def test_masks_and_biases_are_no_fault() -> None:
    everything = frozenset(range(VOCABULARY))
    for temperature in (0.0, 1.0):
        token = sample(random_logits(1), [row(temperature=temperature, min_tokens=1, stop_token_ids=everything)])[0]
        assert token


def test_logprobs_are_the_raw_log_softmax_whatever_is_done_to_the_logits() -> None:
    logits = random_logits(1)
    plain = sample(logits, [row(temperature=0.0, top_logprobs=20)])[0]
    bent = sample(
        logits, [row([1], [2], temperature=0.0, top_logprobs=20, logit_bias=((50, 100.0),), min_tokens=5, **PENALTIES)]
    )[0]
    assert plain
    assert plain.logprobs
    assert bent
    assert bent.logprobs
    assert bent.token_id == 50
    assert bent.logprobs.logprob == pytest.approx(float(logits[0].log_softmax(-1)[50]), abs=1e-5)
    assert bent.logprobs.top == plain.logprobs.top
    assert plain.logprobs.top[0] == (plain.token_id, plain.logprobs.logprob)


@pytest.mark.parametrize(
    ("ignore_eos", "said", "expected"), [(False, 2, 9), (True, 2, 3), (False, 3, 7), (True, 3, 7), (False, 4, 7)]
)
def test_no_end_comes_before_min_tokens(ignore_eos: bool, said: int, expected: int) -> None:
    logits = torch.zeros(1, 50)
    logits[0, [7, 3, 9]] = torch.tensor([3.0, 2.0, 1.0])  # the request's own end, the model's, a word
    ends = frozenset({7, 10**6})  # one is no token of the model
    one = row(said=[0] * said, temperature=0.0, min_tokens=3, stop_token_ids=ends, ignore_eos=ignore_eos)
    assert sampled_ids(logits, [one]) == [expected]


EXTREMES: dict[str, list[Any]] = {
    "temperature": [1e-4, 2.0],
    "top_p": [0.0, 1.0],
    "top_k": [0, 1, 2**31 - 1],
    "min_p": [0.0, 5e-324, 1.0],
    "repetition_penalty": [0.01, 2.0],
    "presence_penalty": [-2.0, 2.0],
    "logit_bias": [(), ((0, -100.0), (49, 100.0))],
    "seed": [-(2**63), 2**63 - 1],
}


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e30, 1e38])
def test_ends_of_every_range_are_taken(scale: float) -> None:
    ends: list[dict[str, Any]] = [
        dict(zip(EXTREMES, ends, strict=True)) for ends in itertools.product(*EXTREMES.values())
    ]
    rows = [row([1, 2], [3, 3, 49], frequency_penalty=2.0, top_logprobs=20, **named) for named in ends]
    logits = random_logits(1, 50).clamp(-3, 3).mul(scale).expand(len(rows), -1)
    found = sampled_ids(logits, rows)
    assert len(found) == len(rows)
    assert set(found) <= set(range(50))
