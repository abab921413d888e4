"""Batch norm over the rows of all processes: a batch's result does not depend on how it is shared out."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from coca_video.ops.distributed import num_processes, sum_over_processes

ALL_BUT_CHANNELS = (0, 2, 3)


class BatchNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d, and exactly that in a process that runs alone and in eval mode.

    In training in a distributed run mean and variance, and the running ones, are those of the rows of all
    processes, which may differ in number. All processes must call, and all must call backward or none.
    """

    has_weight = True  # False within `without_weight`

    def forward(self, x: Tensor) -> Tensor:
        """'b c h w', also in low precision; the sums are of float32."""
        is_whole = x.is_meta or (self.has_weight and num_processes() == 1)  # nothing to exchange
        if is_whole or not self.training:
            return super().forward(x)
        count, mean, variance = _statistics(x) if self.has_weight else _statistics(x[:0])
        mean = torch.where(count > 0, mean, self.running_mean)
        unbiased = torch.where(count > 1, variance * count / (count - 1), self.running_var)
        variance = torch.where(count > 0, variance, self.running_var)
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
            self.num_batches_tracked.add_(1)
        statistics = mean.float(), variance.float(), count.float()
        return _Normalise.apply(x, self.weight, self.bias, *statistics, self.eps, self.has_weight)


@contextmanager
def without_weight(model: nn.Module) -> Iterator[None]:
    """Within, batches that pass the model in training mode count for nothing in its batch norms.

    For a process without a share of a batch: it computes something in its place, so that the others do not
    wait for it, and gives its loss no weight. What it computes is normalised by the others' statistics; by
    the running ones where no process has a row. Only the forward pass need be within.
    """
    norms = [part for part in model.modules() if isinstance(part, BatchNorm)]
    for norm in norms:
        norm.has_weight = False
    try:
        yield
    finally:
        for norm in norms:
            norm.has_weight = True


@torch.no_grad()
def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Over all processes, float64: how many values a channel has, their mean and variance 'c'.

    Sums of squares are put together from each process' own mean and deviations, and in double precision:
    what a large mean takes away from the variance is too small to see.
    """
    x = x.float()
    own_count = x.numel() // x.shape[1]
    own_mean = x.sum(dim=ALL_BUT_CHANNELS) / max(own_count, 1)
    deviations = (x - _of_channels(own_mean)).square_().sum(dim=ALL_BUT_CHANNELS).double()
    own_mean = own_mean.double()
    sums, squares = own_mean * own_count, deviations + own_mean.square() * own_count
    count, sums, squares = sum_over_processes(torch.cat([sums.new_tensor([own_count]), sums, squares])).split(
        [1, len(sums), len(sums)]
    )
    mean = sums / count
    return count, mean, (squares / count - mean.square()).clamp(min=0)


class _Normalise(torch.autograd.Function):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias.

    Mean and variance depend on the rows that count, of all processes: each of these has a share in the
    gradients of all rows.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, mean, variance, count, eps, has_weight):
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), count)
        ctx.has_weight = has_weight
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        x, weight, mean, inverse_deviation, count = ctx.saved_tensors
        x_gradient = gradient.float()
        normal = (x.float() - _of_channels(mean)) * _of_channels(inverse_deviation)
        of_bias = x_gradient.sum(dim=ALL_BUT_CHANNELS)
        of_weight = (x_gradient * normal).sum(dim=ALL_BUT_CHANNELS)
        by_mean, by_deviation = sum_over_processes(torch.stack([of_bias, of_weight])) / count.clamp(min=1)
        if ctx.has_weight:
            x_gradient = x_gradient - _of_channels(by_mean) - normal * _of_channels(by_deviation)
        x_gradient = x_gradient * _of_channels(weight * inverse_deviation)
        return x_gradient.to(x.dtype), of_weight, of_bias, None, None, None, None, None


def _of_channels(x: Tensor) -> Tensor:
    """'c' -> 'c 1 1'."""
    return x[:, None, None]
