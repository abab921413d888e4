"""`pairwise` over the rows of all processes, none of which holds more than its own and a visitor's.

The columns travel around a ring of the processes, as in Inf-CL (arXiv 2410.17243): each is met by all rows,
tile by tile, and comes home with its result. The backward pass sends them around once more, with their
gradients.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from coca_video.ops.distributed import num_processes, rank
from coca_video.ops.pairwise import TILE_SIZE, add_shares_, logsumexp, tiles

# So that messages under way at the same time are told apart.
LUGGAGE_TAG = 0
RESULT_TAG = 16


def ring_logsumexp(
    q: Tensor,
    k: Tensor,
    scale: Tensor,
    counts: list[int],
    *,
    groups: Tensor | None = None,
    tile_size: int = TILE_SIZE,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`row_and_column_logsumexp` over the pairs of all processes, from scores computed once.

    q, k: 'n e', own rows and columns, of one dtype, in which the scores are computed; scale: scalar.
    counts: n of each process, by rank (`row_counts`).
    groups: int 'n', of rows and columns alike.
    Returns float64 'n': the log-sum-exp of own rows over all columns; that of own columns over all rows; with
    groups each own row's mean score with all columns of its group, without them None.
    The gradient in q and k is the sum over processes, that in scale this process' part of it. All processes
    must call, and all must call backward or none.
    """
    return _RingLogSumExp.apply(q, k, scale, groups, counts, tile_size)


class _RingLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, scale, groups, counts, tile_size):
        rows = _Rows(q, q * scale, groups, tile_size)
        row_lse, column_lse = (q.new_full((len(q),), float("-inf"), dtype=torch.float64) for _ in range(2))
        sums, nums = torch.zeros_like(row_lse), torch.zeros_like(row_lse)

        def meet(luggage: list[Tensor], column_lse: Tensor) -> None:
            for tile in rows.meet(*luggage):
                row_lse[tile.rows] = torch.logaddexp(row_lse[tile.rows], logsumexp(tile.scores, dim=1))
                merged = torch.logaddexp(column_lse[tile.columns], logsumexp(tile.scores, dim=0))
                column_lse[tile.columns] = merged
                if tile.same is not None:
                    sums[tile.rows] += tile.scores.where(tile.same, 0).sum(dim=1)
                    nums[tile.rows] += tile.same.sum(dim=1)

        luggage = [k] if groups is None else [k, groups]
        column_lse = _around(luggage, column_lse, counts, meet)
        ctx.save_for_backward(q, k, scale, groups, row_lse, column_lse, nums)
        ctx.counts, ctx.tile_size = counts, tile_size
        return row_lse, column_lse, None if groups is None else sums / nums

    @staticmethod
    @once_differentiable
    def backward(ctx, row_gradient, column_gradient, mean_gradient):
        q, k, scale, groups, row_lse, column_lse, nums = ctx.saved_tensors
        rows = _Rows(q, q * scale, groups, ctx.tile_size)
        for_q = torch.zeros_like(q)  # the gradients but for their factor, scale
        same_gradient = None if groups is None else (mean_gradient / nums).to(q.dtype)

        def meet(luggage: list[Tensor], for_k: Tensor) -> None:
            k, lse, gradient, *groups = luggage
            for tile in rows.meet(k, *groups):
                shares = torch.zeros_like(tile.scores)
                add_shares_(shares, tile.scores, row_lse[tile.rows, None], row_gradient[tile.rows, None])
                add_shares_(shares, tile.scores, lse[tile.columns], gradient[tile.columns])
                if tile.same is not None:
                    shares.addcmul_(tile.same, same_gradient[tile.rows, None])
                for_q[tile.rows].addmm_(shares, k[tile.columns])
                for_k[tile.columns].addmm_(shares.T, q[tile.rows])

        luggage = [k, column_lse, column_gradient, *([] if groups is None else [groups])]
        for_k = _around(luggage, torch.zeros_like(k), ctx.counts, meet)
        of_scale = (q * for_q).sum().view_as(scale)
        return for_q * scale, for_k * scale, of_scale, None, None, None


@dataclass
class _Tile:
    rows: slice
    columns: slice
    scores: Tensor
    same: Tensor | None  # bool: row and column are of one group


@dataclass
class _Rows:
    """Of this process."""

    q: Tensor
    scaled: Tensor
    groups: Tensor | None
    tile_size: int

    def meet(self, k: Tensor, groups: Tensor | None = None) -> Iterator[_Tile]:
        """Their scores with a block of columns; the next tile overwrites them."""
        for rows, columns, scores in tiles(self.scaled, k, self.tile_size):
            same = None if groups is None else self.groups[rows, None] == groups[columns]
            yield _Tile(rows, columns, scores, same)


def _around(
    luggage: list[Tensor], result: Tensor, counts: list[int], meet: Callable[[list[Tensor], Tensor], None]
) -> Tensor:
    """Sends own columns past every process; each calls `meet`, which adds to the result that they bring.

    luggage: what does not change on the way, and so is under way to the next process during the call.
    All tensors have a row for each column. Returns the own columns' result.
    """
    luggage = [x.contiguous() for x in luggage]
    for step in range(num_processes()):
        is_last = step == num_processes() - 1
        num_coming = counts[(rank() - step - 1) % num_processes()]
        arrived = None if is_last else _pass_on(luggage, num_coming, tag=LUGGAGE_TAG)
        meet(luggage, result)
        (result,) = _pass_on([result], num_coming, tag=RESULT_TAG)()
        luggage = luggage if arrived is None else arrived()
    return result


def _pass_on(blocks: list[Tensor], num_coming: int, *, tag: int) -> Callable[[], list[Tensor]]:
    """Begins to send to the next process, and to receive blocks of num_coming rows from the one before.

    Returns what waits for them. The blocks must not be written to until then.
    """
    coming = [block.new_empty(num_coming, *block.shape[1:]) for block in blocks]
    after, before = (rank() + 1) % num_processes(), (rank() - 1) % num_processes()
    ways = [(dist.isend, after, blocks), (dist.irecv, before, coming)]
    operations = [
        dist.P2POp(way, block, peer, tag=tag + i)
        for way, peer, moved in ways
        for i, block in enumerate(moved)
        if block.numel()
    ]
    requests = dist.batch_isend_irecv(operations) if operations else []

    def arrived() -> list[Tensor]:
        for request in requests:
            request.wait()
        return coming

    return arrived
