"""Repetition, presence and frequency penalties on logits. Called by the sampler; knows what each sequence has said."""

from collections.abc import Sequence as Rows
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch

from inference_server.engine.types import SamplingParams, Sequence


@dataclass(slots=True)
class _History:
    """The tokens that one sequence's penalties weigh, on the logits' device."""

    token_ids: torch.Tensor  # [N] int64, each of the answer and, for a repetition penalty, of the prompt; may repeat
    counts: torch.Tensor  # [V] int32, how often each is in the answer
    counted: int = 0  # of the answer's tokens, how many are in both


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
            history = self._histories[sequence] = _first_history(sequence, logits)
        if history.counted < len(sequence.token_ids):
            arrived = torch.tensor(sequence.token_ids[history.counted :], device=logits.device)
            token_ids = torch.cat([history.token_ids, arrived])  # first what may fail, so that a retry counts once
            history.counts.index_add_(0, arrived, torch.ones_like(arrived, dtype=torch.int32))
            history.token_ids = token_ids
            history.counted = len(sequence.token_ids)
        return history


def is_penalised(params: SamplingParams) -> bool:
    """Whether any of the three is set."""
    return (params.repetition_penalty, params.presence_penalty, params.frequency_penalty) != (1.0, 0.0, 0.0)


def _first_history(sequence: Sequence, logits: torch.Tensor) -> _History:
    """Knows the prompt, and none of the answer yet."""
    prompt = sequence.prompt_token_ids if sequence.params.repetition_penalty != 1.0 else ()
    token_ids = torch.tensor(prompt, dtype=torch.int64, device=logits.device).unique()
    return _History(token_ids, torch.zeros(logits.shape[-1], dtype=torch.int32, device=logits.device))


def _penalise(logits: torch.Tensor, rows: list[int], histories: list[_History], params: list[SamplingParams]) -> None:
    """All rows at once, over their N tokens in sum and not over V. A token that repeats gets the same logit again."""
    settings = torch.tensor(
        [[row.repetition_penalty, row.presence_penalty, row.frequency_penalty] for row in params], device=logits.device
    )  # [R, 3] float32
    lengths = [len(history.token_ids) for history in histories]
    owners = torch.arange(len(rows)).repeat_interleave(torch.tensor(lengths)).to(logits.device)  # [N] places in rows
    logit_rows = torch.tensor(rows, device=logits.device)[owners]
    token_ids = torch.cat([history.token_ids for history in histories])
    counts = torch.cat([history.counts[history.token_ids] for history in histories])
    repetition, presence, frequency = settings[owners].unbind(-1)
    values = logits[logit_rows, token_ids]  # [N]
    values = torch.where(values > 0, values / repetition, values * repetition)
    logits[logit_rows, token_ids] = values - (presence * (counts > 0) + frequency * counts)
