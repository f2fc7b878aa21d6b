"""Random numbers that depend on a key and a token id alone, the same on every device and in every batch.

Source: SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014) as a counter-based
generator, and the Gumbel-max trick: the argmax of logits plus Gumbel noise is a draw from their softmax.
"""

import hashlib
import struct

import torch


def key_of(seed: int, choice_index: int, position: int) -> int:
    """A signed 64-bit number for one draw. position: the token's place in its answer, from 0."""
    packed = struct.pack("<qqq", seed, choice_index, position)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little", signed=True)


def gumbel_noise(keys: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    """keys: [R, 1] int64; token_ids: [R, W] or [W] int64. Returns [R, W] float64."""
    mixed = keys + token_ids * _signed(0x9E3779B97F4A7C15)  # int64 products wrap around
    mixed = (mixed ^ _shifted(mixed, 30)) * _signed(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ _shifted(mixed, 27)) * _signed(0x94D049BB133111EB)
    mixed = mixed ^ _shifted(mixed, 31)
    uniform = (_shifted(mixed, 11).double() + 0.5) / 2**53  # in (0, 1)
    return -torch.log(-torch.log(uniform))


def _shifted(numbers: torch.Tensor, places: int) -> torch.Tensor:
    """To the right with zeros, as unsigned numbers; torch's own shift repeats the sign."""
    return (numbers >> places) & ((1 << (64 - places)) - 1)


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number
