"""Log-sum-exp over the scores of all pairs, in tiles: the matrix is never held (Inf-CL, arXiv 2410.17243)."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE_SIZE = 2048  # rows and columns: 16 MiB of scores in float32


def row_logsumexp(q: Tensor, k: Tensor, scale: Tensor, *, tile_size: int = TILE_SIZE) -> Tensor:
    """Each row's log-sum-exp of the scores scale * q k^T: q 'n e', k 'm e', scale: scalar -> float64 'n'.

    All of one dtype, in which the scores are computed, also under autocast. The result is wider: where scores
    are large, float32 would round away what it exceeds the largest of them by.
    """
    return _LogSumExp.apply(q, k, scale, tile_size, False)[0]


def row_and_column_logsumexp(
    q: Tensor, k: Tensor, scale: Tensor, *, tile_size: int = TILE_SIZE
) -> tuple[Tensor, Tensor]:
    """`row_logsumexp` and that of the columns, 'n' and 'm', from scores computed once."""
    return _LogSumExp.apply(q, k, scale, tile_size, True)


class _LogSumExp(torch.autograd.Function):
    """The backward pass computes the scores again; each one's share is exp(score - log-sum-exp)."""

    @staticmethod
    def forward(ctx, q, k, scale, tile_size, with_columns):
        row_lse = q.new_full((len(q),), float("-inf"), dtype=torch.float64)
        column_lse = k.new_full((len(k),), float("-inf"), dtype=torch.float64) if with_columns else None
        for rows, columns, scores in tiles(q * scale, k, tile_size):
            row_lse[rows] = torch.logaddexp(row_lse[rows], logsumexp(scores, dim=1))
            if with_columns:
                column_lse[columns] = torch.logaddexp(column_lse[columns], logsumexp(scores, dim=0))
        ctx.save_for_backward(q, k, scale, row_lse, column_lse)
        ctx.set_materialize_grads(False)
        ctx.tile_size = tile_size
        return row_lse, column_lse

    @staticmethod
    @once_differentiable
    def backward(ctx, row_gradient, column_gradient):
        q, k, scale, row_lse, column_lse = ctx.saved_tensors
        needs_q, needs_k, needs_scale, *_ = ctx.needs_input_grad
        for_q, for_k = torch.zeros_like(q), torch.zeros_like(k)  # the gradients but for their factor, scale
        for rows, columns, scores in tiles(q * scale, k, ctx.tile_size):
            shares = torch.zeros_like(scores)
            if row_gradient is not None:
                add_shares_(shares, scores, row_lse[rows, None], row_gradient[rows, None])
            if column_gradient is not None:
                add_shares_(shares, scores, column_lse[columns], column_gradient[columns])
            if needs_q or needs_scale:
                for_q[rows].addmm_(shares, k[columns])
            if needs_k:
                for_k[columns].addmm_(shares.T, q[rows])
        return (
            for_q * scale if needs_q else None,
            for_k * scale if needs_k else None,
            (q * for_q).sum().view_as(scale) if needs_scale else None,
            None,
            None,
        )


def tiles(q: Tensor, k: Tensor, size: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Rows, columns and their part of q k^T: a buffer that the next tile overwrites."""
    buffer = q.new_empty(min(size, len(q)), min(size, len(k)))
    for rows in _slices(len(q), size):
        for columns in _slices(len(k), size):
            scores = buffer[: rows.stop - rows.start, : columns.stop - columns.start]
            yield rows, columns, torch.mm(q[rows], k[columns].T, out=scores)


def _slices(length: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def logsumexp(scores: Tensor, *, dim: int) -> Tensor:
    """Of a tile, in float64."""
    largest = scores.amax(dim=dim, keepdim=True)
    return largest.squeeze(dim) + (scores - largest).exp_().sum(dim=dim).log().double()


def add_shares_(shares: Tensor, scores: Tensor, lse: Tensor, gradient: Tensor) -> None:
    """Adds gradient * exp(scores - lse), with the tile in its own dtype: what lse loses there is a factor."""
    rounded = lse.to(scores.dtype)
    factor = gradient * (rounded - lse).exp()
    shares.addcmul_((scores - rounded).exp_(), factor.to(scores.dtype))
