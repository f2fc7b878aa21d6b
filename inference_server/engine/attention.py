"""Attention of one sequence over its own keys and values, which lie in one run of memory and are read in place."""

import torch
import torch.nn.functional as F


class SequenceCache:
    """One sequence's keys and values in all layers. Grows by doubling; freed as a whole."""

    def __init__(self, layer_count: int) -> None:
        self.length = 0  # tokens in the cache before the current step
        self._layers: list[torch.Tensor | None] = [None] * layer_count  # [2, Hkv, capacity, D] each

    def attend(self, layer_index: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """query: [T, Hq, D]; key, value: [T, Hkv, D], both stored behind what is there. Returns [T, Hq, D].

        Each token sees all before it and itself.
        """
        count, end = query.shape[0], self.length + query.shape[0]
        stored = self._with_room(layer_index, key, end)
        stored[0, :, self.length : end] = key.transpose(0, 1)
        stored[1, :, self.length : end] = value.transpose(0, 1)
        keys, values = stored[:, None, :, :end]  # [1, Hkv, end, D] each
        mask = None if count == 1 or not self.length else _causal_mask(count, end, query.device)
        seen = F.scaled_dot_product_attention(
            query.transpose(0, 1)[None],
            keys,
            values,
            attn_mask=mask,
            is_causal=count > 1 and not self.length,
            enable_gqa=True,
        )  # [1, Hq, T, D]
        return seen[0].transpose(0, 1)

    def _with_room(self, layer_index: int, key: torch.Tensor, length: int) -> torch.Tensor:
        stored = self._layers[layer_index]
        if stored is None or stored.shape[2] < length:
            grown = key.new_empty(2, key.shape[1], max(64, 2 * length), key.shape[2])
            if stored is not None:
                grown[:, :, : self.length] = stored[:, :, : self.length]
            self._layers[layer_index] = stored = grown
        return stored


def _causal_mask(count: int, end: int, device: torch.device) -> torch.Tensor:
    """[T, end], true where the t-th of the last T tokens may look."""
    return torch.ones(count, end, dtype=torch.bool, device=device).tril(end - count)
