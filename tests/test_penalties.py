"""Penalties over the steps of an answer: resumed is whole, skipped steps count, nothing is kept alive."""

import gc
import weakref
from typing import Any

import pytest
import torch

from inference_server.engine.sampler import Sampler
from tests.sampling_reference import PENALTIES, STOP_TOKEN_IDS, random_logits, reference_token, row, sample, sampled_ids


@pytest.mark.parametrize(
    "named", [PENALTIES, {"presence_penalty": 2.0}, {"top_k": 20}, {"top_p": 0.9, "min_tokens": 9}]
)
def test_a_resumed_answer_goes_on_as_the_whole_one(named: dict[str, Any]) -> None:
    steps, prompt, sampler = 24, [1, 2, 2, 60], Sampler(STOP_TOKEN_IDS)
    whole, neighbour = row(prompt, seed=5, **named), row([9], seed=6, **PENALTIES)
    logits = random_logits(steps, 100, ties=True)
    for step in range(steps):  # the neighbour comes and goes
        rows = [neighbour, whole] if step % 3 else [whole]
        for one, token_id in zip(rows, sampled_ids(logits[[step] * len(rows)], rows, sampler), strict=True):
            one.token_ids.append(token_id)
    for start in range(1, steps):
        resumed = row(prompt, whole.token_ids[:start], seed=5, **named)
        for step in range(start, steps):
            resumed.token_ids += sampled_ids(logits[step : step + 1], [resumed])
        assert resumed.token_ids == whole.token_ids


def test_the_prompt_pays_the_repetition_penalty_alone() -> None:
    logits = torch.zeros(1, 50)
    logits[0, [5, 6]] = torch.tensor([3.0, 2.0])
    mild = row([5, 5, 5], temperature=0.0, repetition_penalty=1.1, presence_penalty=2.0, frequency_penalty=2.0)
    assert sampled_ids(logits, [mild]) == [5]
    assert sampled_ids(logits, [row([5], temperature=0.0, repetition_penalty=1.6)]) == [6]
    assert sampled_ids(logits, [row([5], [5], temperature=0.0, presence_penalty=1.1)]) == [6]


def test_a_sequence_that_skips_steps_is_penalised_for_all_it_said() -> None:
    sampler, logits = Sampler(STOP_TOKEN_IDS), random_logits(1)
    one = row([1, 2], temperature=0.0, **PENALTIES)
    for said in ([5], [5, 6, 7], [5, 6, 7, *logits[0].topk(3).indices.tolist() * 4]):
        one.token_ids[:] = said
        assert sampled_ids(logits, [one], sampler) == [reference_token(logits[0], one)]


def test_sequences_are_neither_changed_nor_kept_alive() -> None:
    sampler = Sampler(STOP_TOKEN_IDS)
    one = row([1, 2], [3, 4], top_logprobs=2, **PENALTIES)
    sample(random_logits(1), [one], sampler)
    assert (one.prompt_token_ids, one.token_ids) == ((1, 2), [3, 4])
    alive = weakref.ref(one)
    del one
    gc.collect()
    assert alive() is None


def test_a_token_counts_once_however_often_its_step_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler, sequence, logits = Sampler(STOP_TOKEN_IDS), row(temperature=0.0, frequency_penalty=1.0), random_logits(1)
    sample(logits, [sequence], sampler)
    sequence.token_ids.append(7)
    cat = torch.cat

    def failing(tensors: object) -> torch.Tensor:
        monkeypatch.setattr(torch, "cat", cat)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "cat", failing)
    with pytest.raises(torch.OutOfMemoryError):
        sample(logits, [sequence], sampler)
    sample(logits, [sequence], sampler)
    [history] = sampler._penalties._histories.values()
    assert history.counts.sum() == 1
