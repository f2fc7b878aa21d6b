"""A sequence's next tokens through the model. Owns all device memory; called by the engine thread alone."""

import torch

from inference_server.engine.attention import SequenceCache
from inference_server.engine.model_loader import LoadedModel
from inference_server.engine.types import Sequence

# Prompt tokens per step: a cancelled request stops within two such steps, however long its prompt.
_CHUNK_TOKENS = 512


class ModelRunner:
    """Runs one sequence at a time."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._caches: dict[Sequence, SequenceCache] = {}

    @property
    def sequence_count(self) -> int:
        """Sequences that hold cache memory."""
        return len(self._caches)

    @torch.inference_mode()
    def forward(self, sequence: Sequence) -> torch.Tensor | None:
        """Computes the sequence's next chunk and counts it.

        Returns the logits that follow its last token, [1, V] float32; None while tokens are left to compute.
        """
        if sequence not in self._caches:
            self._caches[sequence] = SequenceCache(self._model.config.num_hidden_layers)
        cache, start = self._caches[sequence], sequence.computed_count
        pending = sequence.tokens_from(start, _CHUNK_TOKENS)
        token_ids = torch.tensor(pending, device=self._model.device)  # [T]
        positions = torch.arange(start, start + len(pending), device=self._model.device)
        logits: torch.Tensor = self._model.module(token_ids, positions, cache.attend)
        cache.length = sequence.computed_count = start + len(pending)
        return logits if sequence.computed_count == sequence.length else None

    def release(self, sequence: Sequence) -> None:
        """Frees what the sequence holds; harmless where it holds nothing."""
        self._caches.pop(sequence, None)
