"""A sequence's next tokens through the model. Owns all device memory; called by the engine thread alone."""

import torch
from transformers import DynamicCache

from inference_server.engine.model_loader import LoadedModel
from inference_server.engine.types import Sequence

# Prompt tokens per step: a cancelled request stops within two such steps, however long its prompt.
_CHUNK_TOKENS = 512


class ModelRunner:
    """Runs one sequence at a time."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._caches: dict[Sequence, DynamicCache] = {}  # keys and values

    @property
    def sequence_count(self) -> int:
        """Sequences that hold cache memory."""
        return len(self._caches)

    @torch.inference_mode()
    def forward(self, sequence: Sequence) -> torch.Tensor | None:
        """Computes the sequence's next chunk and counts it.

        Returns the logits that follow its last token, [1, V] float32; None while tokens are left to compute.
        """
        cache = self._caches.setdefault(sequence, DynamicCache(config=self._model.config))
        pending = (*sequence.prompt_token_ids, *sequence.token_ids)[sequence.computed_count :][:_CHUNK_TOKENS]
        token_ids = torch.tensor([pending], device=self._model.device)  # [1, T]
        output = self._model.module(token_ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        sequence.computed_count += len(pending)
        if sequence.computed_count < sequence.length:
            return None
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def release(self, sequence: Sequence) -> None:
        """Frees what the sequence holds; harmless where it holds nothing."""
        self._caches.pop(sequence, None)
