"""One step: chunks in, sampled tokens out, and a fault of one sequence stays that sequence's own.

Called by the engine's loop. A step can be computed again, because nothing counts before the scheduler has advanced.
"""

import logging
import traceback
from collections.abc import Sequence as Rows
from typing import Protocol

import torch

from inference_server.engine.sampler import Sampler, is_plain
from inference_server.engine.types import Chunk, Computed, SampledToken
from inference_server.errors import OutOfMemory, SequenceFailed

_log = logging.getLogger(__name__)

# What became of a chunk: a token, None where more known tokens are to be computed, or what ends its sequence.
Outcome = SampledToken | OutOfMemory | SequenceFailed | None


class Runner(Protocol):
    """What a step needs of the model runner."""

    def forward(self, chunks: Rows[Chunk], keep_logits: bool) -> Computed:
        """What follows each chunk's last token. Without keep_logits nobody will look at the logits."""

    def probe(self) -> None:
        """Raises where the device is broken."""

    def clear(self, block_ids: list[int]) -> None:
        """Zeros."""


class Step:
    """Computes and samples."""

    def __init__(self, runner: Runner, sampler: Sampler) -> None:
        self._runner = runner
        self._sampler = sampler
        self.attempt_count = 0  # computations that have ended, well or not

    def run(self, chunks: Rows[Chunk]) -> list[Outcome]:
        """One outcome for each chunk. Raises where not a request but the device or the engine itself is broken."""
        outcomes = self._attempt(chunks)
        if isinstance(outcomes, Exception):
            _log.error("a step of %d sequences failed; it is divided", len(chunks), exc_info=outcomes)
            outcomes = self._divided(chunks, outcomes)
            self._runner.probe()
        elif any(isinstance(outcome, NotFinite) for outcome in outcomes):
            self._runner.probe()
        return outcomes

    def clear(self, block_ids: list[int]) -> None:
        """Overwrites blocks whose content is not to be trusted."""
        self._runner.clear(block_ids)

    def _attempt(self, chunks: Rows[Chunk]) -> list[Outcome] | Exception:
        try:
            return self._compute(chunks)
        except Exception as error:
            # the frames of its traceback hold the failed step's tensors: only the last lines are kept
            error.add_note("".join(traceback.format_tb(error.__traceback__)[-3:]))
            return error.with_traceback(None)
        finally:
            self.attempt_count += 1

    def _divided(self, chunks: Rows[Chunk], error: Exception) -> list[Outcome]:
        """Halves a step that has failed until what fails is one sequence."""
        if is_out_of_memory(error) and torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(chunks) == 1:
            return [_end_of(error)]
        outcomes: list[Outcome] = []
        middle = len(chunks) // 2
        for half in (chunks[:middle], chunks[middle:]):
            attempted = self._attempt(half)
            outcomes += self._divided(half, attempted) if isinstance(attempted, Exception) else attempted
        return outcomes

    def _compute(self, chunks: Rows[Chunk]) -> list[Outcome]:
        sampling = [place for place, chunk in enumerate(chunks) if chunk.samples]
        sequences = [chunks[place].sequence for place in sampling]
        computed = self._runner.forward(chunks, keep_logits=not all(map(is_plain, sequences)))
        # what a prompt has written so far may be shared, so it is looked at in any case
        outcomes: list[Outcome] = [
            NotFinite("its logits are not finite") if token_id is None else None for token_id in computed.likeliest
        ]
        for place, token in zip(sampling, self._sampler.sample(computed.of(sampling), sequences), strict=True):
            outcomes[place] = token or outcomes[place]
        return outcomes


class NotFinite(SequenceFailed):
    """The logits are not all numbers; what the cache holds of this sequence must not be used."""


def _end_of(error: Exception) -> OutOfMemory | SequenceFailed:
    if is_out_of_memory(error):
        return OutOfMemory()
    failure = SequenceFailed("its step raised an exception")
    failure.__cause__ = error
    return failure


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on whichever device; torch's CPU allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)
