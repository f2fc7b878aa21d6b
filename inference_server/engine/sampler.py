"""Logits to tokens. Called by the engine once a step; knows sequences' parameters and token ids, not their text."""

import math
from collections.abc import Sequence as Rows

import torch

from inference_server.engine.draw import Way, draw, likeliest, pick_rows
from inference_server.engine.gumbel import key_of
from inference_server.engine.penalties import Penalties, is_penalised
from inference_server.engine.types import Computed, SampledToken, SamplingParams, Sequence, TokenLogprobs

# Below it a temperature is greedy: a lead of 1e-3 in the logits already weighs e**100.
_GREEDY_BELOW = 1e-5
_ARGMAX_BLOCKS = 128


class Sampler:
    """Picks the next token of each sequence."""

    def __init__(
        self,
        stop_token_ids: frozenset[int],
        unknown_token_ids: frozenset[int] = frozenset(),
        without_top_k: Way | None = None,
    ) -> None:
        """stop_token_ids: the model's own end tokens. unknown_token_ids: those that the model has logits for and the
        tokenizer does not have. without_top_k: as `draw` takes it.
        """
        self._stop_token_ids = stop_token_ids
        self._unknown_token_ids = torch.tensor(sorted(unknown_token_ids), dtype=torch.int64)
        self._without_top_k = without_top_k
        self._penalties = Penalties()

    def sample(self, computed: Computed, sequences: Rows[Sequence]) -> list[SampledToken | None]:
        """Picks one token per row, None for a row whose logits are not all finite.

        computed: of S rows, float32 or bfloat16, overwritten; without logits only where `is_plain` holds for all. Row
        i's token takes place len(sequences[i].token_ids) in its answer. In this order: log-probabilities of the raw
        logits, unknown tokens out, penalties, bias, min_tokens; then argmax, or temperature, min_p, top_k, top_p and a
        draw. The draw adds noise that depends on (seed, choice, place, token id) alone, so that a row's token does not
        depend on its neighbours. Equal logits are in the order of their ids.
        """
        tokens = [None if token_id is None else SampledToken(token_id) for token_id in computed.likeliest]
        if not len(computed.logits):
            assert all(map(is_plain, sequences))
            return tokens
        edited = [row for row, token in enumerate(tokens) if token and not is_plain(sequences[row])]
        if edited:
            sampled = self._sample(pick_rows(computed.logits, edited).float(), [sequences[row] for row in edited])
            for row, token in zip(edited, sampled, strict=True):
                tokens[row] = token
        return tokens

    @torch.inference_mode()
    def _sample(self, logits: torch.Tensor, sequences: list[Sequence]) -> list[SampledToken]:
        """logits: [S, V] float32, overwritten."""
        self._unknown_token_ids = self._unknown_token_ids.to(logits.device)
        raw_logprobs = _RawLogprobs(logits, sequences, self._unknown_token_ids)
        _forbid(logits, self._unknown_token_ids)
        self._penalties.apply(logits, sequences)
        for row, sequence in enumerate(sequences):
            if sequence.params.logit_bias:
                _add_bias(logits[row], sequence.params)
            if len(sequence.token_ids) < sequence.params.min_tokens:
                self._forbid_end(logits[row], sequence.params)
        token_ids = _choose(logits, sequences, self._without_top_k)
        told = raw_logprobs.of(token_ids)
        return [SampledToken(token_id, told.get(row)) for row, token_id in enumerate(token_ids)]

    def _forbid_end(self, logits: torch.Tensor, params: SamplingParams) -> None:
        """logits: [V], in place."""
        ends = params.stop_token_ids | (frozenset() if params.ignore_eos else self._stop_token_ids)
        known = [token_id for token_id in ends if token_id < len(logits)]
        logits.index_fill_(0, torch.tensor(known, dtype=torch.int64, device=logits.device), -torch.inf)


class _RawLogprobs:
    """What the model itself thought, for the rows that ask, taken before their logits are changed.

    Unknown tokens have their share of the probability, as with transformers, but are not told.
    """

    def __init__(self, logits: torch.Tensor, sequences: list[Sequence], unknown_token_ids: torch.Tensor) -> None:
        """logits: [S, V] float32; those of unknown tokens are overwritten."""
        asked = {row: sequence.params.top_logprobs for row, sequence in enumerate(sequences)}
        self._counts = {row: count for row, count in asked.items() if count is not None}
        if self._counts:
            asking = pick_rows(logits, list(self._counts))  # [A, V]
            self._logprobs = asking.log_softmax(dim=-1)
            _forbid(asking, unknown_token_ids)
            most = max(self._counts.values())
            self._top_ids = likeliest(asking, list(self._counts.values()))[1][:, :most] if most else None  # [A, most]

    def of(self, token_ids: list[int]) -> dict[int, TokenLogprobs]:
        """token_ids: one per row of the logits. Returns what each asking row's answer tells."""
        if not self._counts:
            return {}
        chosen = torch.tensor([[token_ids[row]] for row in self._counts], device=self._logprobs.device)  # [A, 1]
        shown = chosen if self._top_ids is None else torch.cat([chosen, self._top_ids], dim=-1)  # [A, 1 + most]
        told = zip(shown.tolist(), self._logprobs.gather(1, shown).tolist(), strict=True)
        return {
            row: TokenLogprobs(logprobs[0], tuple(zip(ids[1 : 1 + count], logprobs[1 : 1 + count], strict=True)))
            for (row, count), (ids, logprobs) in zip(self._counts.items(), told, strict=True)
        }


def greedy_tokens(logits: torch.Tensor, unknown_token_ids: frozenset[int] = frozenset()) -> list[int | None]:
    """The likeliest known token of each row of [S, V], the first of equals; None where not all logits are finite."""
    token_ids: list[int] = argmax(logits).tolist()
    unknown = [row for row, token_id in enumerate(token_ids) if token_id in unknown_token_ids]
    if unknown:  # as good as never: no column needs to be looked at before
        others = logits[unknown]  # a copy
        _forbid(others, torch.tensor(list(unknown_token_ids), device=logits.device))
        for row, token_id in zip(unknown, argmax(others).tolist(), strict=True):
            token_ids[row] = token_id
    return [token_id if is_finite else None for token_id, is_finite in zip(token_ids, finite_rows(logits), strict=True)]


def finite_rows(logits: torch.Tensor) -> list[bool]:
    """Which rows of [S, V] have only finite logits. A sum of finite ones may overflow, so it only acquits."""
    finite: list[bool] = logits.sum(dim=-1).isfinite().tolist()
    return finite if all(finite) else logits.isfinite().all(dim=-1).tolist()


def argmax(logits: torch.Tensor) -> torch.Tensor:
    """torch's argmax of each row, the first of equals, in two passes that a CPU does six times as fast as its one.

    logits: [S, V]. Returns [S] int64.
    """
    blocks = logits.unflatten(-1, (math.gcd(_ARGMAX_BLOCKS, logits.shape[-1]), -1))  # [S, B, V / B]
    best = blocks.amax(dim=-1).argmax(dim=-1)  # [S], the first block that has it
    of_best = blocks[torch.arange(len(logits), device=logits.device), best]  # [S, V / B]
    token_ids: torch.Tensor = best * blocks.shape[-1] + of_best.argmax(dim=-1)
    return token_ids


def is_plain(sequence: Sequence) -> bool:
    """Whether its next token is the likeliest one, and nothing else is asked about it."""
    params = sequence.params
    return (
        params.temperature < _GREEDY_BELOW
        and params.top_logprobs is None
        and not is_penalised(params)
        and not params.logit_bias
        and len(sequence.token_ids) >= params.min_tokens
    )


def _forbid(logits: torch.Tensor, token_ids: torch.Tensor) -> None:
    """logits: [S, V], in place; token_ids: [U] int64."""
    if len(token_ids):
        logits.index_fill_(1, token_ids, -torch.inf)


def _add_bias(logits: torch.Tensor, params: SamplingParams) -> None:
    """logits: [V], in place."""
    token_ids, biases = zip(*params.logit_bias, strict=True)
    bias = torch.tensor(biases, dtype=logits.dtype, device=logits.device)
    logits.index_add_(0, torch.tensor(token_ids, device=logits.device), bias)


def _choose(logits: torch.Tensor, sequences: list[Sequence], without_top_k: Way | None) -> list[int]:
    """logits: [S, V] as edited. Returns one id per row."""
    drawn = [row for row, sequence in enumerate(sequences) if sequence.params.temperature >= _GREEDY_BELOW]
    greedy = [row for row, sequence in enumerate(sequences) if sequence.params.temperature < _GREEDY_BELOW]
    token_ids = torch.empty(len(sequences), dtype=torch.int64, device=logits.device)
    if greedy:
        token_ids[greedy] = argmax(pick_rows(logits, greedy))
    if drawn:
        params = [sequences[row].params for row in drawn]
        keys = [key_of(sequences[row].params.seed, 0, len(sequences[row].token_ids)) for row in drawn]
        token_ids[drawn] = draw(pick_rows(logits, drawn), params, keys, without_top_k)
    chosen: list[int] = token_ids.tolist()
    return chosen
