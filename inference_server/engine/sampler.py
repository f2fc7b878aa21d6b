"""Logits to token ids. Called by the engine once a step; knows parameters and tensors, not sequences' text."""

import hashlib
import struct
from collections.abc import Sequence as Rows
from dataclasses import dataclass

import torch

from inference_server.engine.types import SamplingParams

# Below it a temperature is greedy: a lead of 1e-3 in the logits already weighs e**100.
_GREEDY_BELOW = 1e-5


@dataclass(frozen=True, slots=True)
class SamplingRow:
    """What one row of logits needs: its parameters and its token's place in the answer, from 0."""

    params: SamplingParams
    position: int
    choice_index: int = 0


def sample(logits: torch.Tensor, rows: Rows[SamplingRow]) -> list[int]:
    """Picks one token per row.

    logits: [S, V] float32. A temperature of 0 is argmax. Every other draw is inverse-transform sampling of one uniform
    number that depends on (seed, choice, position) alone, so that a row's token does not depend on its neighbours.
    """
    token_ids = logits.argmax(dim=-1)  # [S]
    drawn = [index for index, row in enumerate(rows) if row.params.temperature >= _GREEDY_BELOW]
    if drawn:
        token_ids[drawn] = _draw(logits[drawn], [rows[index] for index in drawn])
    chosen: list[int] = token_ids.tolist()
    return chosen


def _draw(logits: torch.Tensor, rows: Rows[SamplingRow]) -> torch.Tensor:
    """logits: [R, V]. Returns [R] int64."""
    device, vocabulary = logits.device, logits.shape[-1]
    temperature = torch.tensor([[row.params.temperature] for row in rows], device=device)  # [R, 1]
    top_k = torch.tensor([[row.params.top_k or vocabulary] for row in rows], device=device)
    top_p = torch.tensor([[row.params.top_p] for row in rows], device=device)
    ordered, token_ids = logits.sort(dim=-1, descending=True, stable=True)  # [R, V]
    ordered = (ordered - ordered[:, :1]) / temperature
    rank = torch.arange(vocabulary, device=device)
    probabilities = ordered.masked_fill(rank >= top_k, -torch.inf).softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities  # likelier than the token, in sum
    kept = probabilities.masked_fill((before >= top_p) & (rank > 0), 0.0)
    sums = kept.cumsum(dim=-1)
    uniform = torch.tensor([[_uniform(row)] for row in rows], device=device)  # [R, 1]
    place = torch.searchsorted(sums, uniform * sums[:, -1:], right=True)
    last = (kept > 0).sum(dim=-1, keepdim=True) - 1  # rounding may point behind the last kept token
    return token_ids.gather(1, torch.minimum(place, last)).squeeze(1)


def _uniform(row: SamplingRow) -> float:
    """A number in [0, 1) that depends on the row's key alone, the same on every machine."""
    key = struct.pack("<qqq", row.params.seed, row.choice_index, row.position)
    bits = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")
    return (bits >> 40) / 2**24  # 24 bits: a float32 below 1
