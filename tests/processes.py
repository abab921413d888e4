"""Several gloo processes on this machine. What they are to do must be in a module that they can import."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from coca_video.ops.distributed import num_processes, rank

# What takes processes longest to import: they are forked from one that has done so.
PRELOADED = ["torch.distributed.tensor", "torch._dynamo", "einops", "pytest"]


def in_processes(folder: Path, *works: Callable[[int], None], num_processes: int = 2) -> None:
    """Each process calls each work(rank) in turn; what fails there fails here."""
    start(
        _join, str(folder / f"meeting of {num_processes}"), works, num_processes, num_processes=num_processes
    )


def start(work: Callable, *arguments: Any, num_processes: int) -> None:
    """Each process calls work(rank, *arguments)."""
    torch.multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    torch.multiprocessing.start_processes(
        work, args=arguments, nprocs=num_processes, start_method="forkserver"
    )


def _join(rank: int, meeting: str, works: tuple[Callable[[int], None], ...], num_processes: int) -> None:
    torch.set_num_threads(1)
    # The server that forks may have been started by a pool of workers, which no signal may interrupt.
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=num_processes)
    for work in works:
        work(rank)
    dist.destroy_process_group()


def splits(num_rows: int) -> list[list[int]]:
    """Ways to share rows out among the processes: evenly, and such that the first (the last) has none."""
    even = [num_rows // num_processes()] * num_processes()
    rest = num_rows - 1 - (num_processes() - 2)
    uneven = [0, rest, *[1] * (num_processes() - 2)]
    uneven[-1] += num_rows - sum(uneven)
    return [even, uneven, uneven[::-1]]


def own_leaf(whole: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """This process' rows, as something of its own that asks for a gradient."""
    return whole.detach().split(counts)[rank()].clone().requires_grad_()


def assert_means_equal(found: torch.Tensor, expected: torch.Tensor) -> None:
    """The mean over processes of what each has found."""
    mean = found.detach().clone()
    dist.all_reduce(mean)
    assert_near(mean / num_processes(), expected)


def assert_own_rows_equal(found: torch.Tensor, expected: torch.Tensor, counts: list[int]) -> None:
    """Gradients of own rows, which averaging over processes would divide by their number."""
    assert_near(found / num_processes(), expected.split(counts)[rank()], size=expected)


def assert_near(found: torch.Tensor, expected: torch.Tensor, *, size: torch.Tensor | None = None) -> None:
    """To 1e-5; sums of many terms round at their size, or that of what they are a part of."""
    largest = max(1.0, (expected if size is None else size).abs().max().item())
    torch.testing.assert_close(found.detach(), expected.detach(), atol=1e-5 * largest, rtol=0)
