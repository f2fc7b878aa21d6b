"""Draws through the compiled code: `draw_from_sorted` without sorting. Called by the sampler on a CPU."""

import math
from collections.abc import Sequence as Rows

import torch

from inference_server.engine.draw import draw_from_all, draw_from_sorted, has_limits, pick_rows
from inference_server.engine.native.library import Library, RowParts
from inference_server.engine.types import SamplingParams


class CompiledDraw:
    """`draw` for rows without a top_k."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def __call__(self, logits: torch.Tensor, params: Rows[SamplingParams], keys: Rows[int]) -> torch.Tensor:
        """logits: [R, V] float32 on the CPU, kept. Returns [R] int64, the tokens of `draw_from_sorted`."""
        logits = logits.contiguous()
        best: list[float] = logits.amax(dim=-1).tolist()
        rows = (RowParts * len(keys))()
        for index, (row, own, key) in enumerate(zip(rows, params, keys, strict=True)):
            row.logits, row.vocabulary, row.best = logits[index].data_ptr(), logits.shape[-1], best[index]
            row.temperature, row.top_p, row.key = own.temperature, own.top_p, key % 2**64
            row.log_min_p = math.log(own.min_p) if own.min_p > 0 else -math.inf
        chosen = self._library.draw(rows)
        for index in (index for index, token_id in enumerate(chosen) if token_id < 0 or math.isinf(best[index])):
            slow = draw_from_sorted if has_limits(params[index]) else draw_from_all
            chosen[index] = int(slow(pick_rows(logits, [index]), [params[index]], [keys[index]]))
        return torch.tensor(chosen)
