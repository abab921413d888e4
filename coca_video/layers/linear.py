"""The linear layer of all other layers."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from coca_video.ops.linear import FEW_ROWS, pack, packed_linear


class Linear(nn.Linear):
    """nn.Linear that can keep a packed copy of its weight: '... d_in' -> '... d_out'."""

    packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        # One row is a matrix-vector product, which reads the weight as it is.
        if self.packed is None or torch.is_grad_enabled() or not 1 < x.shape[:-1].numel() <= FEW_ROWS:
            return super().forward(x)
        return packed_linear(x, self.packed, self.bias)


@contextmanager
def packed_linears(*modules: nn.Module) -> Iterator[None]:
    """Within, few rows pass the modules' linear layers fast on a CPU; weights must not change meanwhile.

    It takes as much memory again as the weights, and a moment to copy them: for many captions, not for one.
    What is packed already, by a block around this one, stays so.
    """
    linears = [layer for module in modules for layer in module.modules() if isinstance(layer, Linear)]
    layers = [layer for layer in linears if layer.packed is None]
    for layer in layers:
        layer.packed = pack(layer.weight.detach())
    try:
        yield
    finally:
        for layer in layers:
            layer.packed = None
