"""Products with a weight, and the form of it that a CPU multiplies fastest. Knows no model.

torch's own linear layer reorders a bfloat16 weight for the processor in every call; `PackedLinear` does it once. Both
give the same bits, and a row's result does not depend on the rows beside it (tests/test_linear.py).
Source: oneDNN's packed weights, https://uxlfoundation.github.io/oneDNN/dev_guide_matmul.html
"""

import timeit
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

_TRIALS = 7
_TRIAL_ROWS = 2**14


class Linear(nn.Linear):
    """A weight [O, I] as torch has it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def reset_parameters(self) -> None:
        """Weights are read, not drawn; drawing without memory would import torch's compiler, for almost two seconds."""

    def plus(self, hidden: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """hidden: [T, I]; residual: [T, O], kept. Returns [T, O]."""
        total: torch.Tensor = residual + self(hidden)
        return total


class PackedLinear(nn.Module):
    """A bfloat16 weight [O, I] in the processor's own order."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
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


@torch.inference_mode()
def _seconds(work: Callable[[], object]) -> float:
    """Of the fastest of some runs: what slows the others down is not the work's own."""
    work()  # sets the library up
    return min(timeit.repeat(work, number=1, repeat=_TRIALS))
