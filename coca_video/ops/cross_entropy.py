"""Cross-entropy of a linear map onto a large vocabulary, without holding all of its scores."""

import importlib
import importlib.util
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_BYTES = 2**26  # of scores held at a time: 262 rows of 64,000 in float32


def linear_cross_entropy(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    label_smoothing: float = 0.0,
    chunk_size: int | None = None,
) -> Tensor:
    """Mean cross-entropy of the scores x W^T: a scalar, in float32 also where the products are not.

    x: 'n d', weight: 'v d', targets: int 'n', all in [0, v). Under autocast the products are of its dtype.
    chunk_size: how many rows' scores are held at a time; None: what fits into CHUNK_BYTES, or on CUDA, where
        Liger Kernel is installed, its kernel.
    Raises ValueError where there is no row.
    """
    if not len(x):
        raise ValueError(f"the mean cross-entropy needs at least one row, got x of shape {tuple(x.shape)}")
    if not torch.is_grad_enabled():  # a Function is not told, and would make gradients for nothing
        x, weight = x.detach(), weight.detach()
    if chunk_size is None and _liger_serves(x, weight):
        functional = importlib.import_module("liger_kernel.transformers.functional")
        return functional.liger_fused_linear_cross_entropy(
            x, weight, targets, label_smoothing=label_smoothing
        )
    return _LinearCrossEntropy.apply(x, weight, targets, label_smoothing, chunk_size)


def _liger_serves(x: Tensor, weight: Tensor) -> bool:
    """It leaves out the weight's gradient where x needs none."""
    return x.is_cuda and _liger_installed() and (x.requires_grad or not weight.requires_grad)


@cache
def _liger_installed() -> bool:
    return importlib.util.find_spec("liger_kernel") is not None


class _LinearCrossEntropy(torch.autograd.Function):
    """Makes the gradients in the forward pass, of scores that are at hand: no product is computed twice."""

    @staticmethod
    def forward(ctx, x, weight, targets, label_smoothing, chunk_size):
        needs_x, needs_weight, *_ = ctx.needs_input_grad
        dtype = _product_dtype(x)
        x_gradient = torch.empty_like(x) if needs_x else None
        weight_gradient = torch.zeros_like(weight, dtype=_wide(dtype)) if needs_weight else None
        low_x, low_weight = x.to(dtype), weight.to(dtype)
        total = torch.zeros((), dtype=_wide(dtype), device=x.device)
        for rows, scores in _chunks_of_scores(low_x, low_weight, chunk_size):
            total += _losses_(scores, targets[rows], label_smoothing).sum()
            if needs_x or needs_weight:
                score_gradient = _gradient_(scores, targets[rows], label_smoothing).to(dtype)
            if needs_x:
                x_gradient[rows] = torch.mm(score_gradient, low_weight)
            if needs_weight:
                _add_product_(weight_gradient, score_gradient.T, low_x[rows])
        ctx.save_for_backward(
            x_gradient, None if weight_gradient is None else weight_gradient.to(weight.dtype)
        )
        ctx.num_rows = len(x)
        return total / len(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        scale = gradient / ctx.num_rows
        x_gradient, weight_gradient = (g if g is None else g * scale for g in ctx.saved_tensors)
        return x_gradient, weight_gradient, None, None, None


def _product_dtype(x: Tensor) -> torch.dtype:
    """What autocast makes of x in a product: within a Function's forward pass it is left to us."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def _wide(dtype: torch.dtype) -> torch.dtype:
    """That of sums over many terms."""
    return torch.promote_types(dtype, torch.float32)


def _chunks_of_scores(x: Tensor, weight: Tensor, chunk_size: int | None) -> Iterator[tuple[slice, Tensor]]:
    """Rows of x, and their scores in wide numbers 'rows v': a buffer that the next chunk overwrites."""
    num_scores, dtype = len(weight), _wide(x.dtype)
    chunk_size = min(chunk_size or max(1, CHUNK_BYTES // (num_scores * dtype.itemsize)), len(x))
    buffer = torch.empty(chunk_size, num_scores, dtype=dtype, device=x.device)
    for start in range(0, len(x), chunk_size):
        rows = slice(start, min(start + chunk_size, len(x)))
        scores = buffer[: rows.stop - start]
        if x.dtype == dtype:
            torch.mm(x[rows], weight.T, out=scores)
        else:
            scores.copy_(torch.mm(x[rows], weight.T))
        yield rows, scores


def _losses_(scores: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Each row's cross-entropy, 'n 1'; leaves the rows' softmax in `scores`."""
    scores.sub_(scores.amax(dim=1, keepdim=True))
    wanted = (1 - label_smoothing) * scores.gather(1, targets.unsqueeze(1))
    if label_smoothing:
        wanted += label_smoothing * scores.mean(dim=1, keepdim=True)
    sums = scores.exp_().sum(dim=1, keepdim=True)
    scores.div_(sums)
    return sums.log() - wanted


def _gradient_(softmax: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Subtracts the wanted distribution, in place: each row's gradient of its loss in its scores."""
    if label_smoothing:
        softmax.sub_(label_smoothing / softmax.shape[1])
    softmax[torch.arange(len(targets), device=targets.device), targets] -= 1 - label_smoothing
    return softmax


def _add_product_(total: Tensor, a: Tensor, b: Tensor) -> None:
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += torch.mm(a, b)
