"""Draws one token per row of logits. Called by the sampler; knows parameters and keys, not sequences.

A draw is the argmax of logits over temperature plus noise that is keyed by token id. Logits that another order of sums
had moved by 1e-4 changed none of 7,680 draws; with inverse transform of one uniform number they changed 123.

top_p's weights are whole numbers in float64 whose sums stay below 2**53, so every sum is exact in any order: a row's
token depends neither on the rows that share its kernel nor on how many tokens were fetched.
"""

import math
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Rows
from dataclasses import dataclass

import torch

from inference_server.engine.gumbel import gumbel_noise
from inference_server.engine.types import SamplingParams

# Above it a full sort is not much dearer than torch.topk.
MOST_FETCHED_TOP_K = 1024
# A row of 151,936 logits takes about 11 MB while it is sorted and summed.
ROWS_AT_ONCE = 8
# The likeliest token's; 2**18 tokens of it sum to 2**52.
_LARGEST_WEIGHT = 2.0**34

Way = Callable[[torch.Tensor, Rows[SamplingParams], Rows[int]], torch.Tensor]


def draw(
    logits: torch.Tensor, params: Rows[SamplingParams], keys: Rows[int], without_top_k: Way | None = None
) -> torch.Tensor:
    """Pick one token per row, by noise that depends on its key.

    logits: [R, V] float32, kept; temperatures are above 0. keys: signed 64-bit numbers. Returns [R] int64. Each row's
    own parameters say in which way it is drawn; every way gives the tokens of `draw_from_sorted`. without_top_k: a
    faster way for rows without a top_k.
    """
    chosen = torch.empty(len(params), dtype=torch.int64, device=logits.device)
    ways = [_way(row, logits.shape[-1], without_top_k) for row in params]
    for way in dict.fromkeys(ways):
        at_once = ROWS_AT_ONCE if way in (draw_from_sorted, draw_from_all) else len(ways)
        for rows in chunks([row for row, own in enumerate(ways) if own is way], at_once):
            own_params, own_keys = [params[row] for row in rows], [keys[row] for row in rows]
            chosen[rows] = way(pick_rows(logits, rows), own_params, own_keys)
    return chosen


def draw_from_likeliest(logits: torch.Tensor, params: Rows[SamplingParams], keys: Rows[int]) -> torch.Tensor:
    """`draw` for rows with a top_k of 1 or more, without sorting all of V."""
    ordered, token_ids = likeliest(logits, [row.top_k for row in params])
    return _draw_from_ordered(ordered, token_ids, _Limits.of(params, logits), _key_column(keys, logits))


def draw_from_sorted(logits: torch.Tensor, params: Rows[SamplingParams], keys: Rows[int]) -> torch.Tensor:
    """`draw` for rows with any limits: the slow reference."""
    ordered, token_ids = logits.sort(dim=-1, descending=True, stable=True)
    return _draw_from_ordered(ordered, token_ids, _Limits.of(params, logits), _key_column(keys, logits))


def draw_from_all(logits: torch.Tensor, params: Rows[SamplingParams], keys: Rows[int]) -> torch.Tensor:
    """`draw` for rows without top_k, top_p and min_p: nothing needs to be sorted."""
    limits = _Limits.of(params, logits)
    behind = _behind(logits, logits.amax(dim=-1, keepdim=True), limits.temperature)
    token_ids = torch.arange(logits.shape[-1], device=logits.device)
    return behind.add_(gumbel_noise(_key_column(keys, logits), token_ids)).argmax(dim=-1)


def likeliest(logits: torch.Tensor, counts: Rows[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The first tokens of a stable descending sort, equal logits by ascending id.

    logits: [R, V] float32, kept. Returns logits [R, W] and ids [R, W] int64; row i's first counts[i] places are exact
    (all of them where counts[i] is more than V); what follows them is less likely or as likely, in no promised choice.
    """
    vocabulary, most = logits.shape[-1], max(counts)
    fetched = most + most // 4 + 64  # room for tokens as likely as the last one wanted
    if fetched >= vocabulary:
        return logits.sort(dim=-1, descending=True, stable=True)
    values, token_ids = logits.topk(fetched, dim=-1)  # [R, W]; which of the equal ones come is not defined
    token_ids, by_id = token_ids.sort(dim=-1)
    values, by_value = values.gather(1, by_id).sort(dim=-1, descending=True, stable=True)
    token_ids = token_ids.gather(1, by_value)
    last_wanted = torch.tensor([[max(count, 1) - 1] for count in counts], device=logits.device)  # [R, 1]
    open_ended = values.gather(1, last_wanted) == values[:, -1:]
    for rows in chunks(open_ended.flatten().nonzero().flatten().tolist(), ROWS_AT_ONCE):
        ordered, ordered_ids = logits[rows].sort(dim=-1, descending=True, stable=True)
        values[rows], token_ids[rows] = ordered[:, :fetched], ordered_ids[:, :fetched]
    return values, token_ids


def pick_rows(logits: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """logits: [S, V]. Returns the named rows in ascending order, [R, V]: a copy only where there are others."""
    return logits if len(rows) == logits.shape[0] else logits[rows]


def chunks(rows: list[int], most: int) -> Iterator[list[int]]:
    """The rows in order, at most so many at once."""
    return (rows[start : start + most] for start in range(0, len(rows), most))


@dataclass(frozen=True, slots=True)
class _Limits:
    """What narrows the draws of R rows; every field is [R, 1] float64 on the logits' device."""

    temperature: torch.Tensor
    top_k: torch.Tensor  # at least 1
    top_p: torch.Tensor
    log_min_p: torch.Tensor

    @classmethod
    def of(cls, params: Rows[SamplingParams], logits: torch.Tensor) -> "_Limits":
        columns = [
            [row.temperature for row in params],
            [row.top_k or logits.shape[-1] for row in params],
            [row.top_p for row in params],
            [math.log(row.min_p) if row.min_p > 0 else -math.inf for row in params],
        ]
        return cls(*torch.tensor(columns, dtype=torch.float64, device=logits.device).unsqueeze(-1))


def has_limits(params: SamplingParams) -> bool:
    """Whether top_p or min_p leaves tokens out."""
    return (params.top_p, params.min_p) != (1.0, 0.0)


def _way(params: SamplingParams, vocabulary: int, without_top_k: Way | None) -> Way:
    top_k = params.top_k if params.top_k < vocabulary else 0
    if 1 <= top_k <= MOST_FETCHED_TOP_K:
        return draw_from_likeliest
    if top_k:
        return draw_from_sorted
    return without_top_k or (draw_from_sorted if has_limits(params) else draw_from_all)


def _draw_from_ordered(
    ordered: torch.Tensor, token_ids: torch.Tensor, limits: _Limits, keys: torch.Tensor
) -> torch.Tensor:
    """ordered: [R, W], likeliest first; token_ids: [R, W]; keys: [R, 1]. Returns [R] int64."""
    behind = _behind(ordered, ordered[:, :1], limits.temperature)  # [R, W]
    rank = torch.arange(ordered.shape[-1], device=ordered.device)  # [W]
    behind = behind.masked_fill_((rank >= limits.top_k) | (behind < limits.log_min_p), -torch.inf)
    weights = _weights(behind)
    sums = weights.cumsum(dim=-1)
    dropped = (sums - weights >= limits.top_p * sums[:, -1:]) & (rank > 0)
    scores = behind.masked_fill_(dropped, -torch.inf).add_(gumbel_noise(keys, token_ids))
    return token_ids.gather(1, scores.argmax(dim=-1, keepdim=True)).squeeze(1)


def _key_column(keys: Rows[int], logits: torch.Tensor) -> torch.Tensor:
    return torch.tensor(keys, dtype=torch.int64, device=logits.device)[:, None]  # [R, 1]


def _behind(logits: torch.Tensor, best: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """How far each logit is behind its row's best one, over the temperature: [R, W] float64, at most 0.

    Where edits made the best one infinite, its equals are not behind it.
    """
    return (logits.double() - best).div_(temperature).nan_to_num_(nan=0.0)


def _weights(behind: torch.Tensor) -> torch.Tensor:
    """Whole numbers that are to each other as the probabilities: [R, W] float64."""
    return behind.exp().mul_(_LARGEST_WEIGHT).round_()
