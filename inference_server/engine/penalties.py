"""Repetition, presence and frequency penalties on logits. Called by the sampler; knows what each sequence has said."""

from array import array
from collections.abc import Sequence as Rows
from weakref import WeakKeyDictionary

import torch

from inference_server.engine.types import SamplingParams, Sequence


class _History:
    """The distinct tokens that one sequence's penalties weigh, in slots of their own, on the logits' device."""

    def __init__(self, sequence: Sequence, logits: torch.Tensor) -> None:
        """Knows the prompt if a repetition penalty weighs it, and none of the answer yet."""
        prompt = sequence.prompt_token_ids if sequence.params.repetition_penalty != 1.0 else ()
        self._slot_of = array("i", [-1]) * logits.shape[-1]  # by token id
        self._token_ids = torch.empty(0, dtype=torch.int64, device=logits.device)  # [C], C >= slot_count
        self._counts = torch.empty(0, dtype=torch.float32, device=logits.device)  # [C], how often each is in the answer
        self._slot_count = 0
        self._counted = 0  # tokens of the answer
        self._add_slots(list(dict.fromkeys(prompt)))

    @property
    def token_ids(self) -> torch.Tensor:
        """[N] int64, distinct."""
        return self._token_ids[: self._slot_count]

    @property
    def counts(self) -> torch.Tensor:
        """[N] float32."""
        return self._counts[: self._slot_count]

    def catch_up(self, answer: list[int]) -> None:
        """Count the tokens that the answer has got since the last call. A call that fails counts nothing."""
        arrived = answer[self._counted :]
        if not arrived:
            return
        self._add_slots([token_id for token_id in dict.fromkeys(arrived) if self._slot_of[token_id] < 0])
        slots = torch.tensor([self._slot_of[token_id] for token_id in arrived], device=self._counts.device)
        self._counts.index_add_(0, slots, torch.ones_like(slots, dtype=torch.float32))
        self._counted = len(answer)

    def _add_slots(self, token_ids: list[int]) -> None:
        if not token_ids:
            return
        first, end = self._slot_count, self._slot_count + len(token_ids)
        if end > len(self._token_ids):  # double, so that growing costs the same for each token
            room = max(end, 2 * first) - first
            self._token_ids, self._counts = (
                torch.cat([kept[:first], kept.new_zeros(room)]) for kept in (self._token_ids, self._counts)
            )
        self._token_ids[first:end] = torch.tensor(token_ids, device=self._token_ids.device)
        for slot, token_id in enumerate(token_ids, first):
            self._slot_of[token_id] = slot
        self._slot_count = end


class Penalties:
    """Lowers the logits of what was said. Keeps 4 bytes a vocabulary entry for each living sequence with a penalty."""

    def __init__(self) -> None:
        self._histories: WeakKeyDictionary[Sequence, _History] = WeakKeyDictionary()

    def apply(self, logits: torch.Tensor, sequences: Rows[Sequence]) -> None:
        """Changes the rows of sequences with a penalty, in place.

        logits: [S, V] float32. Tokens of prompt and answer: a positive logit is divided by repetition_penalty, another
        multiplied (CTRL, arXiv:1909.05858). Then tokens of the answer: presence_penalty once and frequency_penalty as
        often as they came are subtracted (OpenAI's API reference).
        """
        rows = [row for row, sequence in enumerate(sequences) if is_penalised(sequence.params)]
        if rows:
            histories = [self._history(sequences[row], logits) for row in rows]
            _penalise(logits, rows, histories, [sequences[row].params for row in rows])

    def _history(self, sequence: Sequence, logits: torch.Tensor) -> _History:
        history = self._histories.get(sequence)
        if history is None:
            history = self._histories[sequence] = _History(sequence, logits)
        history.catch_up(sequence.token_ids)
        return history


def is_penalised(params: SamplingParams) -> bool:
    """Whether any of the three is set."""
    return (params.repetition_penalty, params.presence_penalty, params.frequency_penalty) != (1.0, 0.0, 0.0)


def _penalise(logits: torch.Tensor, rows: list[int], histories: list[_History], params: list[SamplingParams]) -> None:
    """All rows at once, over their N distinct tokens in sum and not over V. logits: [S, V] contiguous, in place.

    Flat indices: on a CPU they are forty times as fast as pairs of row and column.
    """
    settings = torch.tensor(
        [[row.repetition_penalty, row.presence_penalty, row.frequency_penalty] for row in params], device=logits.device
    )  # [R, 3] float32
    lengths = torch.tensor([len(history.token_ids) for history in histories], device=logits.device)
    repetition, presence, frequency = settings.repeat_interleave(lengths, dim=0).unbind(-1)  # each [N]
    vocabulary, flat = logits.shape[-1], logits.view(-1)
    places = torch.cat([history.token_ids + row * vocabulary for row, history in zip(rows, histories, strict=True)])
    counts = torch.cat([history.counts for history in histories])
    values = flat[places]  # [N]
    values = torch.where(values > 0, values / repetition, values * repetition)
    flat.scatter_(0, places, values - (presence * (counts > 0) + frequency * counts))
