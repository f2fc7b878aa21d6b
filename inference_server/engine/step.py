"""One step: chunks in, sampled tokens out, and a fault of one sequence stays that sequence's own.

Called by the engine's loop. A step can be computed again, because nothing counts before the scheduler has advanced.
"""

import logging
from collections.abc import Sequence as Rows
from typing import Protocol

import torch

from inference_server.engine.sampler import Sampler
from inference_server.engine.types import Chunk, SampledToken
from inference_server.errors import OutOfMemory, SequenceFailed

_log = logging.getLogger(__name__)

# What became of a chunk: a token, None where more known tokens are to be computed, or what ends its sequence.
Outcome = SampledToken | OutOfMemory | SequenceFailed | None


class Runner(Protocol):
    """What a step needs of the model runner."""

    def forward(self, chunks: Rows[Chunk]) -> torch.Tensor:
        """Logits [S, V] float32 of the chunks that sample."""

    def probe(self) -> None:
        """Raises where the device is broken."""

    def clear(self, block_ids: list[int]) -> None:
        """Zeros."""


class Step:
    """Computes and samples."""

    def __init__(self, runner: Runner, sampler: Sampler) -> None:
        self._runner = runner
        self._sampler = sampler

    def run(self, chunks: Rows[Chunk]) -> list[Outcome]:
        """One outcome for each chunk. Raises where not a request but the device or the engine itself is broken."""
        try:
            outcomes = self._compute(chunks)
        except Exception as error:
            _log.exception("a step of %d sequences failed; each is tried alone", len(chunks))
            _free_cached_memory(error)
            outcomes = [self._alone(chunk) for chunk in chunks]
            self._runner.probe()
        if any(isinstance(outcome, NotFinite) for outcome in outcomes):
            self._runner.probe()
        return outcomes

    def clear(self, block_ids: list[int]) -> None:
        """Overwrites blocks whose content is not to be trusted."""
        self._runner.clear(block_ids)

    def _compute(self, chunks: Rows[Chunk]) -> list[Outcome]:
        logits = self._runner.forward(chunks)  # [S, V]
        sampling = [chunk.sequence for chunk in chunks if chunk.samples]
        tokens = iter(self._sampler.sample(logits, sampling) if sampling else ())
        return [_or_failure(next(tokens)) if chunk.samples else None for chunk in chunks]

    def _alone(self, chunk: Chunk) -> Outcome:
        try:
            return self._compute([chunk])[0]
        except Exception as error:
            _log.exception("the step of one sequence failed")
            if is_out_of_memory(error):
                _free_cached_memory(error)
                return OutOfMemory()
            failure = SequenceFailed("its step raised an exception")
            failure.__cause__ = error
            return failure


class NotFinite(SequenceFailed):
    """The logits are not all numbers; what the cache holds of this sequence must not be used."""


def _or_failure(token: SampledToken | None) -> Outcome:
    return NotFinite("its logits are not finite") if token is None else token


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on whichever device; torch's CPU allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def _free_cached_memory(error: BaseException) -> None:
    if is_out_of_memory(error) and torch.cuda.is_available():
        torch.cuda.empty_cache()
