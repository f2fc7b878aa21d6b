"""Whether the CPU's decode tokens get a kernel of their own. Asked once, when the cache is made."""

import dataclasses
import logging
import sys
import time
from typing import TYPE_CHECKING

import torch

from inference_server.engine.attention.in_place import InPlaceAttention
from inference_server.engine.attention.types import CacheShape
from inference_server.engine.types import NO_SAMPLING, Chunk, Sequence

if TYPE_CHECKING:
    from inference_server.engine.attention.decode_kernel import DecodeKernel

_log = logging.getLogger(__name__)
_SEQUENCES, _KEYS, _TRIES = 4, 128, 7


def choose_decode_kernel(shape: CacheShape, query_heads: int) -> "DecodeKernel | None":
    """The kernel where it can be made, agrees with torch's flash attention and is faster in a trial of some ms."""
    if shape.dtype is not torch.bfloat16 or shape.head_size % 2 or sys.byteorder != "little":
        return None
    try:
        from inference_server.engine.attention.decode_kernel import DecodeKernel

        kernel = DecodeKernel(query_heads, shape.key_value_heads, shape.head_size, shape.block_size)
    except (ImportError, OSError, RuntimeError) as error:  # no LLVM for this machine, or one that fails
        _log.warning("decode tokens attend by torch's flash attention, slowly: %s", error)
        return None
    (seen, kernel_s), (expected, flash_s) = (_trial(shape, query_heads, choice) for choice in (kernel, None))
    if not torch.allclose(seen, expected, atol=2e-2):
        _log.warning("the decode kernel differs from flash attention by %.3g", (seen - expected).abs().max())
        return None
    _log.debug("a trial of decode attention: kernel %.0f us, flash attention %.0f us", kernel_s * 1e6, flash_s * 1e6)
    return kernel if kernel_s < flash_s else None


@torch.inference_mode()
def _trial(shape: CacheShape, query_heads: int, kernel: "DecodeKernel | None") -> tuple[torch.Tensor, float]:
    """What a few sequences see, in float32, and the seconds that it takes at best."""
    blocks = -(-_KEYS // shape.block_size)
    small = dataclasses.replace(shape, layer_count=1, block_count=_SEQUENCES * blocks)
    attention = InPlaceAttention(small, kernel)
    generator = torch.Generator().manual_seed(0)
    chunks: list[Chunk] = []
    for index in range(_SEQUENCES):
        sequence = Sequence((0,) * _KEYS, NO_SAMPLING, block_ids=list(range(index * blocks, (index + 1) * blocks)))
        chunks.append(Chunk(sequence, 0, _KEYS - 1))
    for chunk in chunks:
        attention.prepare([chunk])
        attention.attend(0, *_heads(small, query_heads, chunk.count, generator))
    attention.prepare([Chunk(chunk.sequence, _KEYS - 1, 1) for chunk in chunks])
    parts, times = _heads(small, query_heads, _SEQUENCES, generator), []
    for _ in range(_TRIES):
        begin = time.perf_counter()
        seen = attention.attend(0, *parts)
        times.append(time.perf_counter() - begin)
    return seen.float(), min(times)


def _heads(shape: CacheShape, query_heads: int, count: int, generator: torch.Generator) -> list[torch.Tensor]:
    numbers = (query_heads, shape.key_value_heads, shape.key_value_heads)
    return [torch.randn(count, heads, shape.head_size, generator=generator).to(shape.dtype) for heads in numbers]
