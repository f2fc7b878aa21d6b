"""Who owns which block of the KV cache: numbers only, no tensors. Called by the scheduler.

A block holds the keys and values of `block_size` neighbouring tokens in all layers. A full block is known by a digest
of its tokens and all before them, so that sequences with the same beginning share blocks. Blocks that nobody holds any
more stay known until their place is needed, the least recently used ones go first.
"""

import hashlib
from array import array
from collections import OrderedDict

from inference_server.engine.extents import Extents
from inference_server.engine.types import CacheUse, Sequence

SCRATCH_BLOCK = 0  # belongs to nobody: padding and probes write there
# Evicting block by block would leave places of one block each; a little more at once leaves runs of neighbours.
_EVICTED_SHARE = 32


class KVCache:
    """Gives blocks to sequences and takes them back."""

    def __init__(self, block_count: int, block_size: int, salt: bytes = b"", prefix_caching: bool = True) -> None:
        """block_count: blocks that sequences may hold, numbered from 1. salt: makes digests unpredictable."""
        self.block_count = block_count
        self.block_size = block_size
        self._prefix_caching = prefix_caching
        self._root = hashlib.sha256(salt).digest()
        self._free = Extents(SCRATCH_BLOCK + 1, block_count)
        self._holder_counts = [0] * (SCRATCH_BLOCK + 1 + block_count)
        self._block_of: dict[bytes, int] = {}  # digest -> block
        self._digest_of: dict[int, bytes] = {}
        self._evictable: OrderedDict[int, None] = OrderedDict()  # known, held by nobody; least recently used first
        self._queried_tokens = self._hit_tokens = 0

    @property
    def token_capacity(self) -> int:
        """Tokens that one sequence can have when it is alone."""
        return self.block_count * self.block_size

    @property
    def available_count(self) -> int:
        """Blocks that can be given away now."""
        return self._free.count + len(self._evictable)

    @property
    def use(self) -> CacheUse:
        """What is where now."""
        cached = len(self._evictable)
        used = self.block_count - self._free.count - cached
        return CacheUse(self.block_count, used, cached, self.block_size, self._queried_tokens, self._hit_tokens)

    def blocks_for(self, token_count: int) -> int:
        """Blocks that so many tokens need."""
        return -(-token_count // self.block_size)

    def admit(self, sequence: Sequence, spare_count: int) -> bool:
        """Gives a sequence without blocks all that its known tokens need, known ones first.

        At least one token is left to compute. False, with nothing changed, where fewer than `spare_count` blocks would
        be left over.
        """
        known = self._known_blocks(sequence)
        idle = sum(1 for block in known if not self._holder_counts[block])
        needed = self.blocks_for(sequence.length) - len(known)
        if needed + spare_count > self.available_count - idle:
            return False
        for block in known:
            self._hold(block)
        sequence.block_ids = known
        sequence.computed_count = len(known) * self.block_size
        if sequence.started_s is None:  # what a preempted one finds again is its own
            prompt_tokens = len(sequence.prompt_token_ids)
            self._queried_tokens += prompt_tokens
            self._hit_tokens += min(sequence.computed_count, prompt_tokens)
        return self.grow(sequence, sequence.length)

    def grow(self, sequence: Sequence, token_count: int) -> bool:
        """Gives the sequence blocks for `token_count` tokens. False, with nothing changed, where there are too few."""
        wanted = self.blocks_for(token_count) - len(sequence.block_ids)
        if wanted > self.available_count:
            return False
        if wanted > self._free.count:
            self._evict(wanted)
        if wanted > 0:
            taken = self._free.take(sequence.block_ids[-1] if sequence.block_ids else None, wanted)
            for block in taken:
                self._holder_counts[block] = 1
            sequence.block_ids += taken
        return True

    def advance(self, sequence: Sequence, computed_count: int) -> None:
        """The cache now holds so many of the sequence's tokens; blocks that have become full become known."""
        first_new = sequence.computed_count // self.block_size
        sequence.computed_count = computed_count
        full = computed_count // self.block_size
        if full == first_new or not self._prefix_caching:
            return
        for digest, block in zip(
            self._digests(sequence, full)[first_new:full], sequence.block_ids[first_new:full], strict=True
        ):
            if digest not in self._block_of:
                self._block_of[digest], self._digest_of[block] = block, digest

    def release(self, sequence: Sequence) -> None:
        """Takes the sequence's blocks back; its last ones will be evicted first. Harmless where it holds none."""
        for block in reversed(sequence.block_ids):
            self._holder_counts[block] -= 1
            if self._holder_counts[block]:
                continue
            if block in self._digest_of:
                self._evictable[block] = None
            else:
                self._free.add(block)
        sequence.block_ids = []
        sequence.computed_count = 0

    def forget(self, sequence: Sequence) -> list[int]:
        """Makes the sequence's blocks unknown: what is in them is not to be trusted. Returns those it alone holds."""
        for block in sequence.block_ids:
            digest = self._digest_of.pop(block, None)
            if digest is not None:
                del self._block_of[digest]
        return [block for block in sequence.block_ids if self._holder_counts[block] == 1]

    def _known_blocks(self, sequence: Sequence) -> list[int]:
        if not self._prefix_caching:
            return []
        known = []
        for digest in self._digests(sequence, (sequence.length - 1) // self.block_size):
            block = self._block_of.get(digest)
            if block is None:
                break
            known.append(block)
        return known

    def _digests(self, sequence: Sequence, count: int) -> list[bytes]:
        """Digests of the first `count` full blocks, each a SHA-256 over the one before and the block's token ids."""
        digests = sequence.block_digests
        while len(digests) < count:
            token_ids = sequence.tokens_from(len(digests) * self.block_size, self.block_size)
            before = digests[-1] if digests else self._root
            digests.append(hashlib.sha256(before + array("q", token_ids).tobytes()).digest())
        return digests[:count]

    def _hold(self, block: int) -> None:
        self._holder_counts[block] += 1
        self._evictable.pop(block, None)

    def _evict(self, wanted: int) -> None:
        """Frees places until `wanted` and a few more are there, least recently used first."""
        goal = wanted + self.block_count // _EVICTED_SHARE
        while self._evictable and self._free.count < goal:
            block, _ = self._evictable.popitem(last=False)
            del self._block_of[self._digest_of.pop(block)]
            self._free.add(block)
