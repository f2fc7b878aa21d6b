"""The tokens of one step through the model. Owns all device memory; called by the engine's thread alone.

What a step is made of is the scheduler's business, what is made of its logits the sampler's.
"""

from collections.abc import Sequence as Rows

import torch

from inference_server.engine.attention.types import Attention
from inference_server.engine.decode_graphs import DecodeGraphs
from inference_server.engine.kv_cache import SCRATCH_BLOCK
from inference_server.engine.model_loader import LoadedModel
from inference_server.engine.sampler import greedy_tokens
from inference_server.engine.types import NO_SAMPLING, Chunk, Computed, Sequence


class ModelRunner:
    """Runs steps. Decode steps on CUDA are replayed graphs where `graph_sizes` are given."""

    def __init__(
        self,
        model: LoadedModel,
        attention: Attention,
        graph_sizes: Rows[int] = (),
        unknown_token_ids: frozenset[int] = frozenset(),
    ) -> None:
        """unknown_token_ids: those of the model's vocabulary that the tokenizer does not have."""
        self._model = model
        self._unknown_token_ids = unknown_token_ids
        self._attention = attention
        self._scratch = Chunk(Sequence((0,), NO_SAMPLING, block_ids=[SCRATCH_BLOCK]), 0, 1)
        self._graphs = DecodeGraphs(self._compute, graph_sizes, model.device) if graph_sizes else None

    def warm_up(self) -> None:
        """Runs one token, and captures the graphs where there are any. Raises where the model cannot run."""
        self.probe()
        if self._graphs:
            self._graphs.capture(lambda size: self._attention.prepare([self._scratch] * size))

    @torch.inference_mode()
    def forward(self, chunks: Rows[Chunk], keep_logits: bool = True) -> Computed:
        """Computes the chunks, whose sequences must hold the blocks that they need. Logits have the weights' type."""
        logits = self._logits(chunks)
        return Computed(greedy_tokens(logits, self._unknown_token_ids), logits)

    def _logits(self, chunks: Rows[Chunk]) -> torch.Tensor:
        size = self._graphs.size_for(chunks) if self._graphs else None
        padded = [*chunks, *[self._scratch] * (size - len(chunks))] if size else chunks
        self._attention.prepare(padded)
        token_ids, positions, rows = _step_tensors(padded)
        if self._graphs and size:
            return self._graphs.replay(size, token_ids, positions)[: len(chunks)]
        return self._compute(*(numbers.to(self._model.device) for numbers in (token_ids, positions, rows)))

    def probe(self) -> None:
        """Runs one token that belongs to nobody. Raises where the device is not able to, or gives no finite numbers."""
        if self.forward([self._scratch]).likeliest == [None]:
            raise RuntimeError("the model's output is not finite")

    def clear(self, block_ids: list[int]) -> None:
        """Overwrites blocks whose content is not to be trusted."""
        self._attention.clear(block_ids)

    def _compute(self, token_ids: torch.Tensor, positions: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._model.module(token_ids, positions, self._attention.attend, rows)
        return logits


def _step_tensors(chunks: Rows[Chunk]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids [T], positions [T] and the rows [C] of the chunks' last tokens."""
    token_ids: list[int] = []
    positions: list[int] = []
    rows: list[int] = []
    for chunk in chunks:
        token_ids += chunk.sequence.tokens_from(chunk.start, chunk.count)
        positions += range(chunk.start, chunk.start + chunk.count)
        rows.append(len(token_ids) - 1)
    return torch.tensor(token_ids), torch.tensor(positions), torch.tensor(rows, dtype=torch.int64)
