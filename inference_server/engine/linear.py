"""Products with a weight, and the form of it that a CPU multiplies fastest. Knows no model.

torch's own linear layer reorders a bfloat16 weight for the processor in every call; `PackedLinear` does it once. Both
give the same bits, and a row's result does not depend on the rows beside it (tests/test_linear.py).
Source: oneDNN's packed weights, https://uxlfoundation.github.io/oneDNN/dev_guide_matmul.html
"""

import itertools
import timeit
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Rows
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

# Up to so many rows another count may be faster: the processor's kernel handles rows in small groups.
MOST_PADDED_ROWS = 8
_TRIALS = 7
_TRIAL_ROWS = 2**14
_TRIAL_BYTES = 2**27  # more than processors keep near
_WORTH_PADDING = 0.97


class Linear(nn.Linear):
    """A weight [O, I] as torch has it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def plus(self, hidden: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """hidden: [T, I]; residual: [T, O], kept. Returns [T, O]."""
        total: torch.Tensor = residual + self(hidden)
        return total


class PackedLinear(nn.Module):
    """A bfloat16 weight [O, I] in the processor's own order."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.nbytes = weight.nbytes
        self.inputs = weight.shape[1]
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
        self._linear = torch.ops.mkldnn._linear_pointwise.default
        self._linear_with = torch.ops.mkldnn._linear_pointwise.binary

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden: [T, I]. Returns [T, O]."""
        product: torch.Tensor = self._linear(hidden, self._packed, None, "none", [], "")
        return product

    def plus(self, hidden: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """As `Linear.plus`, the sum rounded once."""
        product: torch.Tensor = self._linear_with(hidden, residual, self._packed, None, "add")
        return product


def packing_pays(weight: torch.Tensor) -> bool:
    """Whether packed products of such a weight run here, and faster than torch's own. Takes some milliseconds."""
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16:
        return False
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    some = weight.detach()[:_TRIAL_ROWS]
    hidden = torch.ones(1, some.shape[1], dtype=some.dtype)
    packed = PackedLinear(some)
    return _seconds(lambda: packed(hidden)) < _seconds(lambda: F.linear(hidden, some))


def pack(module: nn.Module) -> None:
    """Packs every `Linear` of the module, and lets go of the weight where no other module has it."""
    for owner in module.modules():
        for name, child in owner.named_children():
            if isinstance(child, Linear):
                setattr(owner, name, PackedLinear(child.weight))


def fastest_row_counts(packed: Iterable[PackedLinear]) -> list[int]:
    """Entry n says how many rows to compute where n are needed: n, or more where that was measured to be faster."""
    sizes = (linear.nbytes for linear in packed)
    some = [linear for linear, before in zip(packed, itertools.accumulate(sizes), strict=True) if before < _TRIAL_BYTES]
    seconds = [_seconds(partial(_run, some, rows)) for rows in range(1, MOST_PADDED_ROWS + 1)]
    return [0, *(_fastest_from(rows, seconds) for rows in range(1, MOST_PADDED_ROWS + 1))]


def _fastest_from(rows: int, seconds: Rows[float]) -> int:
    """seconds: of 1, 2, ... rows."""
    fastest = min(range(rows, len(seconds) + 1), key=lambda count: seconds[count - 1])
    return fastest if seconds[fastest - 1] < _WORTH_PADDING * seconds[rows - 1] else rows


def _run(linears: Rows[PackedLinear], rows: int) -> None:
    for linear in linears:
        linear(torch.ones(rows, linear.inputs, dtype=torch.bfloat16))


@torch.inference_mode()
def _seconds(work: Callable[[], object]) -> float:
    """Of the fastest of some runs: what slows the others down is not the work's own."""
    work()  # sets the library up
    return min(timeit.repeat(work, number=1, repeat=_TRIALS))
