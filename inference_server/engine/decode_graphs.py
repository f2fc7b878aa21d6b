"""CUDA graphs of decode steps, for a ladder of batch sizes. Called by the model runner.

A decode step is hundreds of small kernels; replaying them as one graph spares launching each from Python.
Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from collections.abc import Callable
from collections.abc import Sequence as Rows

import torch

from inference_server.engine.types import Chunk

Compute = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def ladder(max_sequences: int) -> tuple[int, ...]:
    """Batch sizes that graphs are captured for: powers of two to 8, then every 8th, the last is `max_sequences`."""
    sizes = {size for size in (1, 2, 4, *range(8, max_sequences, 8)) if size < max_sequences}
    return tuple(sorted(sizes | {max_sequences}))


class DecodeGraphs:
    """One graph for each size; all read their input from the same tensors and share one memory pool."""

    def __init__(self, compute: Compute, sizes: Rows[int], device: torch.device) -> None:
        """compute: token ids [S], positions [S], rows [S] to logits [S, V]."""
        self._compute = compute
        self._sizes = sorted(sizes)
        self._token_ids = torch.zeros(self._sizes[-1], dtype=torch.int64, device=device)
        self._positions = torch.zeros(self._sizes[-1], dtype=torch.int64, device=device)
        self._rows = torch.arange(self._sizes[-1], device=device)
        self._logits: torch.Tensor | None = None  # [largest size, V], written by every graph
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    @torch.inference_mode()
    def capture(self, prepare: Callable[[int], None]) -> None:
        """prepare(size) points the attention to a step of so many decode tokens that belong to nobody."""
        pool = None
        for size in reversed(self._sizes):  # the largest first: the smaller ones fit into its memory
            prepare(size)
            inputs = self._token_ids[:size], self._positions[:size], self._rows[:size]
            logits = self._compute(*inputs)  # libraries set themselves up outside of the capture
            if self._logits is None:
                self._logits = torch.empty_like(logits)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                self._logits[:size].copy_(self._compute(*inputs))  # an output of its own would hold its memory
            pool = graph.pool()
            self._graphs[size] = graph

    def size_for(self, chunks: Rows[Chunk]) -> int | None:
        """The smallest captured size that holds the step; None where it is more than decode tokens."""
        if any(chunk.count > 1 or not chunk.samples for chunk in chunks):
            return None
        return next((size for size in self._sizes if size >= len(chunks) and size in self._graphs), None)

    def replay(self, size: int, token_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """token_ids, positions: [size] int64 on the CPU. Returns logits [size, V], valid until the next replay."""
        self._token_ids[:size].copy_(token_ids)
        self._positions[:size].copy_(positions)
        self._graphs[size].replay()
        assert self._logits is not None
        return self._logits[:size]
