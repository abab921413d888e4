"""x W^T + b for few rows of x, as when text is written token by token: there, a CPU mostly reads W."""

import torch
from torch import Tensor

FEW_ROWS = 128


def pack(weight: Tensor) -> Tensor | None:
    """A copy of the weight 'd_out d_in' in oneDNN's blocked layout; None where there is no use for one."""
    if (
        weight.device.type != "cpu"
        or weight.dtype != torch.float32
        or not torch.backends.mkldnn.is_available()
    ):
        return None
    return torch.ops.mkldnn._reorder_linear_weight(weight, FEW_ROWS)


def packed_linear(x: Tensor, packed: Tensor, bias: Tensor | None = None) -> Tensor:
    """x: '... d_in', a weight from `pack`, bias: 'd_out'; returns '... d_out', without a gradient.

    Against the plain product, a third of the time for four rows and two thirds for two dozen (docs/LOG.md).
    The sums are the same, but for the order of their terms.
    """
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), packed, bias, "none", [], "")
