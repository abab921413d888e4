"""What the processes of a distributed run exchange. A process that runs alone has everything."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor

T = TypeVar("T")


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
def joined(device: torch.device | None = None, *, timeout: timedelta = timedelta(days=1)) -> Iterator[None]:
    """Joins the processes of a distributed run, if it is one, for as long as the context lasts.

    They find each other by RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT of the environment, as torchrun sets
    them. device: what they exchange tensors of, and on CUDA from then on the current device; one without an
    index is that of LOCAL_RANK. None: they wait for each other alone, and need no device of their own.
    timeout: how long one waits for the others; what is shared out in advance takes some longer.
    """
    on_cuda = device is not None and device.type == "cuda"
    if on_cuda:
        torch.cuda.set_device(_own_device(device))
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_cuda else "gloo", timeout=timeout)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _own_device(device: torch.device) -> torch.device:
    index = int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device.index
    return torch.device("cuda", index)


def row_counts(x: Tensor) -> list[int]:
    """The number of rows that each process has, by rank. All processes must call."""
    if num_processes() == 1:
        return [len(x)]
    return torch.cat(_gather_list(torch.tensor([len(x)], device=x.device))).tolist()


def gather(x: Tensor, counts: list[int] | None = None) -> Tensor:
    """The rows of all processes, in the order of their ranks: 'n ...' -> 'all ...'.

    Processes may have different numbers of rows, also none. counts: `row_counts`, where they are known.
    A row's gradient is the sum over the processes, and goes to the one that the row came from.
    All processes must call, and all must call backward or none.
    """
    if num_processes() == 1:
        return x
    counts = counts or row_counts(x)
    return _Gather.apply(x, counts) if max(counts) else x


def own_rows(gathered: Tensor, counts: list[int]) -> Tensor:
    """What `gather` made into more rows, again as it was. counts: `row_counts`."""
    return gathered.split(counts)[rank()]


def sum_over_processes(x: Tensor) -> Tensor:
    """Element by element, without gradient; a process that runs alone gets x itself. All must call."""
    if num_processes() == 1:
        return x
    total = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def gather_objects(x: Any) -> list[Any] | None:
    """What each process has, by rank, for the first process; None for the others. All must call."""
    if num_processes() == 1:
        return [x]
    gathered = [None] * num_processes() if rank() == 0 else None
    dist.gather_object(x, gathered)
    return gathered


def by_first(work: Callable[[], T]) -> T:
    """Work of the first process alone: all get what it returns, or raise what it raises. All must call."""
    if num_processes() == 1:
        return work()
    outcome = [_outcome(work) if rank() == 0 else None]
    dist.broadcast_object_list(outcome)
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


def in_first(work: Callable[[], T]) -> T | None:
    """What the work of the first process alone returns, there; None for the others. All raise what it raises.

    For what cannot be sent, such as an open file. All must call.
    """
    made: list[T] = []
    by_first(lambda: made.append(work()))
    return made[0] if made else None


def _outcome(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return work(), None
    except Exception as error:
        return None, error


class _Gather(torch.autograd.Function):
    """Collectives want tensors of one size: shares are filled up to the largest, and cut again."""

    @staticmethod
    def forward(ctx, x, counts):
        ctx.counts = counts
        shares = _gather_list(_filled_up(x, max(counts)))
        return torch.cat([share[:count] for share, count in zip(shares, counts)])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        shares = [_filled_up(share, max(ctx.counts)) for share in gradient.split(ctx.counts)]
        own = torch.empty_like(shares[0])
        dist.reduce_scatter(own, shares)
        return own[: ctx.counts[rank()]], None


def _filled_up(x: Tensor, num_rows: int) -> Tensor:
    if len(x) == num_rows:
        return x.contiguous()
    return torch.cat([x, x.new_zeros(num_rows - len(x), *x.shape[1:])])


def _gather_list(x: Tensor) -> list[Tensor]:
    gathered = [torch.empty_like(x) for _ in range(num_processes())]
    dist.all_gather(gathered, x)
    return gathered


def local_part(x: Tensor) -> Tensor:
    """What this process has of a tensor that may be sharded."""
    return x.to_local() if isinstance(x, DTensor) else x
