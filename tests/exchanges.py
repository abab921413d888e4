"""What processes do to test what they exchange: here, where a spawned process can import it."""

import os
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from processes import own_leaf, splits
from tiny import noise

from coca_video.errors import InputError
from coca_video.ops.distributed import (
    by_first,
    gather,
    gather_objects,
    in_first,
    joined,
    num_processes,
    own_rows,
    row_counts,
    sum_over_processes,
)

NUM_ROWS = 8


def gather_rows(rank: int) -> None:
    everything, weights = noise(NUM_ROWS, 5).detach(), noise(NUM_ROWS, 5, seed=1).detach()
    for counts in splits(NUM_ROWS):
        own = own_leaf(everything, counts)
        gathered = gather(own)
        assert row_counts(own) == counts
        assert torch.equal(gathered, everything) and torch.equal(own_rows(gathered, counts), own)
        assert torch.equal(gather(own, counts), everything)
        assert torch.equal(gather(own.T.clone().T), everything)  # rows that lie apart
        # Process r asks for r + 1 times the weights.
        (gradient,) = torch.autograd.grad((gathered * weights * (rank + 1)).sum(), own)
        times = sum(range(1, num_processes() + 1))
        torch.testing.assert_close(gradient, times * own_rows(weights, counts))


def gather_whole_numbers(rank: int) -> None:
    large = 2**62 + rank
    assert gather(torch.tensor([large] * rank, dtype=torch.long)).tolist() == [
        2**62 + of for of in range(num_processes()) for _ in range(of)
    ]


def gather_nothing(rank: int) -> None:
    own = torch.zeros(0, 5, requires_grad=True)
    gathered = gather(own)
    (gradient,) = torch.autograd.grad(gathered.sum(), own)
    assert gathered.shape == gradient.shape == (0, 5)


def sum_and_collect(rank: int) -> None:
    own = torch.tensor([rank, 1.0], requires_grad=True)
    total = sum_over_processes(own)
    assert total.tolist() == [sum(range(num_processes())), num_processes()] and own.tolist() == [rank, 1]
    assert not total.requires_grad
    apart = torch.arange(6.0).view(2, 3).T
    assert torch.equal(sum_over_processes(apart), num_processes() * apart)
    found = gather_objects({"rank": rank})
    assert found == ([{"rank": of} for of in range(num_processes())] if rank == 0 else None)


def work_of_the_first(rank: int) -> None:
    done = []

    def work() -> int:
        done.append(rank)
        return 7 + rank

    assert by_first(work) == 7 and done == [0] * (rank == 0)
    unsendable = in_first(lambda: lambda: work())
    assert unsendable() == 7 if rank == 0 else unsendable is None
    for ask in (by_first, in_first):
        with pytest.raises(InputError, match="as 0 says"):
            ask(partial(_fail, rank))
    assert gather(torch.tensor([rank])).tolist() == list(range(num_processes()))  # all are still in step


def _fail(rank: int) -> None:
    raise InputError(f"as {rank} says")


def join(rank: int, ports: list[int], folder: Path) -> None:
    """By what torchrun puts into the environment."""
    torch.set_num_threads(1)
    for port, device in zip(ports, (None, torch.device("cpu"))):
        names = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in names.items()}
        with joined(device, timeout=timedelta(minutes=1)):
            assert num_processes() == 2 and dist.get_backend() == "gloo"
            assert gather(torch.tensor([rank])).tolist() == [0, 1]
        assert num_processes() == 1
    (folder / str(rank)).touch()
