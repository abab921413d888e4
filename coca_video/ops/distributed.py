"""What the processes of a distributed run exchange. A process that runs alone has everything."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def num_processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process' number, from 0."""
    return dist.get_rank() if num_processes() > 1 else 0


def wait_for_all() -> None:
    """Until every process has come here."""
    if num_processes() > 1:
        dist.barrier()


@contextmanager
def joined() -> Iterator[None]:
    """Joins the processes that torchrun has started, if it did, for as long as the context lasts.

    They wait for each other alone, up to a day: what is shared out in advance takes some longer than others.
    NCCL's barrier would need, and first have to be told, a GPU of its own for each.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    dist.init_process_group("gloo", timeout=timedelta(days=1))
    try:
        yield
    finally:
        dist.destroy_process_group()


def gather(x: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks: 'n ...' -> '(processes n) ...'.

    A row's gradient is the sum over the processes, and goes to the one that the row came from.
    All processes must call, with equally many rows; where they do not have them, all raise ValueError.
    """
    if num_processes() == 1:
        return x
    nums_rows = _gather_list(torch.tensor([len(x)], device=x.device))
    if len({int(num_rows) for num_rows in nums_rows}) > 1:
        found = ", ".join(str(int(num_rows)) for num_rows in nums_rows)
        raise ValueError(f"all processes must have equally many rows, got {found}")
    return _Gather.apply(x)


def own_rows(gathered: Tensor) -> Tensor:
    """What `gather` made into more rows, again as it was."""
    return gathered.chunk(num_processes())[rank()] if num_processes() > 1 else gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.cat(_gather_list(x.contiguous()))

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        shares = list(gradient.contiguous().chunk(num_processes()))
        own = torch.empty_like(shares[0])
        dist.reduce_scatter(own, shares)
        return own


def _gather_list(x: Tensor) -> list[Tensor]:
    gathered = [torch.empty_like(x) for _ in range(num_processes())]
    dist.all_gather(gathered, x)
    return gathered
