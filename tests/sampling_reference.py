"""What sampling means, one row, one token and one float64 at a time: the reference of the sampler's tests."""

import hashlib
import math
import struct
from collections import Counter
from collections.abc import Sequence as Rows
from typing import Any

import pytest
import torch

from inference_server.engine.sampler import Sampler, greedy_tokens
from inference_server.engine.types import Computed, SampledToken, SamplingParams, Sequence, TokenLogprobs

STOP_TOKEN_IDS = frozenset({3, 4})  # the model's own
VOCABULARY = 200  # more than the 89 that are fetched for a top_k of 20
PENALTIES: dict[str, Any] = {"repetition_penalty": 1.3, "presence_penalty": 0.6, "frequency_penalty": 0.4}


def params(**named: Any) -> SamplingParams:
    return SamplingParams(**{"temperature": 1.0, "top_p": 1.0, "top_k": 0, "seed": 0, "max_tokens": 99} | named)


def row(prompt: Rows[int] = (), said: Rows[int] = (), **named: Any) -> Sequence:
    return Sequence(tuple(prompt), params(**named), list(said))


def random_logits(rows: int, vocabulary: int = VOCABULARY, seed: int = 0, ties: bool = False) -> torch.Tensor:
    logits = torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3
    return logits.bfloat16().float() if ties else logits


def sample(logits: torch.Tensor, rows: Rows[Sequence], sampler: Sampler | None = None) -> list[SampledToken | None]:
    return (sampler or Sampler(STOP_TOKEN_IDS)).sample(Computed(greedy_tokens(logits), logits.clone()), rows)


def sampled_ids(logits: torch.Tensor, rows: Rows[Sequence], sampler: Sampler | None = None) -> list[int]:
    return [token.token_id for token in sample(logits, rows, sampler) if token]


def reference_logits(raw: torch.Tensor, sequence: Sequence) -> list[float]:
    chosen, logits, counts = sequence.params, raw.double().tolist(), Counter(sequence.token_ids)
    for token_id in {*sequence.prompt_token_ids, *counts}:
        penalty = chosen.repetition_penalty
        logits[token_id] = logits[token_id] / penalty if logits[token_id] > 0 else logits[token_id] * penalty
    for token_id, count in counts.items():
        logits[token_id] -= chosen.presence_penalty + chosen.frequency_penalty * count
    for token_id, bias in chosen.logit_bias:
        logits[token_id] += bias
    if len(sequence.token_ids) < chosen.min_tokens:
        for token_id in {*chosen.stop_token_ids, *(() if chosen.ignore_eos else STOP_TOKEN_IDS)}:
            logits[token_id] = -math.inf
    return logits


def reference_probabilities(logits: list[float], chosen: SamplingParams) -> dict[int, float]:
    """Of the tokens that the limits keep."""
    by_logit = sorted(range(len(logits)), key=lambda token_id: (-logits[token_id], token_id))
    best = logits[by_logit[0]]
    weights = {token_id: math.exp((logits[token_id] - best) / chosen.temperature) for token_id in by_logit}
    kept = [token_id for token_id in by_logit if weights[token_id] >= chosen.min_p][: chosen.top_k or None]
    kept_sum, nucleus, before = sum(weights[token_id] for token_id in kept), list[int](), 0.0
    for token_id in kept:
        if not nucleus or before < chosen.top_p * kept_sum:
            nucleus.append(token_id)
        before += weights[token_id]
    nucleus_sum = sum(weights[token_id] for token_id in nucleus)
    return {token_id: weights[token_id] / nucleus_sum for token_id in nucleus}


def reference_token(raw: torch.Tensor, sequence: Sequence) -> int:
    logits, chosen = reference_logits(raw, sequence), sequence.params
    if chosen.temperature < 1e-5:
        return max(range(len(logits)), key=lambda token_id: (logits[token_id], -token_id))
    packed = struct.pack("<qqq", chosen.seed, 0, len(sequence.token_ids))
    key = int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")
    probabilities = reference_probabilities(logits, chosen)
    return max(probabilities, key=lambda token_id: logits[token_id] / chosen.temperature + _gumbel(key, token_id))


def _gumbel(key: int, token_id: int) -> float:
    """SplitMix64 on Python's integers."""
    mixed = (key + token_id * 0x9E3779B97F4A7C15) % 2**64
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
    mixed ^= mixed >> 31
    return -math.log(-math.log(((mixed >> 11) + 0.5) * 2.0**-53))


def reference_logprobs(raw: torch.Tensor, sequence: Sequence, token_id: int) -> TokenLogprobs | None:
    if sequence.params.top_logprobs is None:
        return None
    logprobs = raw.double().log_softmax(-1).tolist()
    by_logit = sorted(range(len(raw)), key=lambda other: (-float(raw[other]), other))
    top = tuple((other, logprobs[other]) for other in by_logit[: sequence.params.top_logprobs])
    return TokenLogprobs(logprobs[token_id], top)


def assert_is_the_reference(logits: torch.Tensor, rows: Rows[Sequence]) -> None:
    for raw, sequence, token in zip(logits, rows, sample(logits, rows), strict=True):
        assert token
        assert token.token_id == reference_token(raw, sequence)
        expected = reference_logprobs(raw, sequence, token.token_id)
        assert (token.logprobs is None) == (expected is None)
        if token.logprobs and expected:
            assert token.logprobs.logprob == pytest.approx(expected.logprob, abs=1e-5)
            assert [other for other, _ in token.logprobs.top] == [other for other, _ in expected.top]
            assert [p for _, p in token.logprobs.top] == pytest.approx([p for _, p in expected.top], abs=1e-5)
