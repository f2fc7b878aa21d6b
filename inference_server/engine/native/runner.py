"""A step through the compiled code. Owns weights and cache; called by the engine's thread alone."""

from array import array
from collections.abc import Sequence as Rows

import torch

from inference_server.engine.kv_cache import SCRATCH_BLOCK
from inference_server.engine.native.library import BLOCK, ModelParts, StepParts
from inference_server.engine.native.weights import PackedWeights, pages
from inference_server.engine.types import NO_SAMPLING, Chunk, Computed, Sequence


class NativeRunner:
    """Runs steps as `ModelRunner` does, of a bfloat16 model on the CPU.

    A token's logits are the same bits whatever else the steps compute, and however its prompt was divided.
    """

    def __init__(self, weights: PackedWeights, block_count: int) -> None:
        """block_count: of the cache, the scratch block among them."""
        self._weights, self._library = weights, weights.library
        self._parts = ModelParts.from_buffer_copy(weights.parts)
        self._layers = type(weights.layers).from_buffer_copy(weights.layers)
        self._parts.layers = self._layers
        sizes = (self._parts.layer_count, 2, block_count, self._parts.key_heads * self._parts.head_size * BLOCK)
        self._cache = pages(2 * torch.Size(sizes).numel()).view(torch.bfloat16).view(sizes)
        for layer, stored in zip(self._layers, self._cache, strict=True):
            layer.keys, layer.values = (part.data_ptr() for part in stored)
        self._scratch = torch.empty(0, dtype=torch.uint8)
        self._logits = torch.empty(0, self._parts.vocabulary, dtype=torch.bfloat16)
        self._nobody = Chunk(Sequence((0,), NO_SAMPLING, block_ids=[SCRATCH_BLOCK]), 0, 1)

    def forward(self, chunks: Rows[Chunk], keep_logits: bool = True) -> Computed:
        """As `ModelRunner.forward`. Logits are bfloat16."""
        token_ids: list[int] = []
        places: list[int] = []
        block_ids: list[int] = []
        for chunk in chunks:
            places += (len(token_ids), chunk.count, chunk.start, len(block_ids))
            token_ids += chunk.sequence.tokens_from(chunk.start, chunk.count)
            needed = -(-(chunk.start + chunk.count) // BLOCK)
            if len(chunk.sequence.block_ids) < needed:  # the compiled code would not notice
                raise IndexError(f"{len(chunk.sequence.block_ids)} blocks, {needed} are needed")
            block_ids += chunk.sequence.block_ids[:needed]
        longest = max(chunk.start + chunk.count for chunk in chunks)
        step = StepParts(len(token_ids), len(chunks), -(-longest // BLOCK) * BLOCK)
        likeliest = array("q", bytes(8 * len(chunks)))
        numbers = [*(array("i", part) for part in (token_ids, places, block_ids)), likeliest]
        step.token_ids, step.chunks, step.block_ids, step.likeliest = (part.buffer_info()[0] for part in numbers)
        if keep_logits and len(self._logits) < len(chunks):  # new memory costs as much as a step
            self._logits = torch.empty(len(chunks), self._parts.vocabulary, dtype=torch.bfloat16)
        logits = self._logits[: len(chunks) if keep_logits else 0]
        step.scratch = self._scratch_for(step)
        step.logits = logits.data_ptr() if keep_logits else None
        self._library.forward(self._parts, step)
        return Computed([None if token_id < 0 else token_id for token_id in likeliest], logits)

    def warm_up(self) -> None:
        """Runs one token. Raises where the model cannot run."""
        self.probe()

    def probe(self) -> None:
        """Runs one token that belongs to nobody. Raises where it gives no finite numbers."""
        if self.forward([self._nobody]).likeliest == [None]:
            raise RuntimeError("the model's output is not finite")

    def clear(self, block_ids: list[int]) -> None:
        """Overwrites blocks whose content is not to be trusted."""
        self._cache[:, :, block_ids] = 0

    def _scratch_for(self, step: StepParts) -> int:
        wanted = self._library.scratch_bytes(self._parts, step)
        if len(self._scratch) < wanted:
            self._scratch = torch.empty(wanted, dtype=torch.uint8)
        return self._scratch.data_ptr()
