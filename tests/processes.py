"""Two gloo processes, and what the tests have them do: here, where a spawned process can import it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import reference
import torch
import torch.distributed as dist
import torch.nn.functional as F
from tiny import noise

from coca_video.losses import contrastive_loss
from coca_video.ops.distributed import gather, num_processes, own_rows

NUM_PROCESSES = 2


def in_processes(folder: Path, *works: Callable[[int], None]) -> None:
    """Each process calls each work(rank) in turn; what fails there fails here."""
    torch.multiprocessing.spawn(_join, args=(str(folder / "meeting"), works), nprocs=NUM_PROCESSES)


def _join(rank: int, meeting: str, works: tuple[Callable[[int], None], ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=NUM_PROCESSES)
    for work in works:
        work(rank)
    dist.destroy_process_group()


def gather_rows(rank: int) -> None:
    everything = noise(NUM_PROCESSES * 3, 5).detach()
    own = everything.chunk(NUM_PROCESSES)[rank].clone().requires_grad_()
    gathered = gather(own)
    assert num_processes() == NUM_PROCESSES
    assert torch.equal(gathered, everything) and torch.equal(own_rows(gathered), own)
    assert gather(torch.tensor([rank, 7])).tolist() == [0, 7, 1, 7]
    assert torch.equal(gather(own.T.clone().T), everything)  # rows that lie apart
    # Process r asks for r + 1 times the weights: in sum, three times.
    weights = noise(*everything.shape, seed=1).detach()
    (gradient,) = torch.autograd.grad((gathered * weights * (rank + 1)).sum(), own)
    torch.testing.assert_close(gradient, 3 * own_rows(weights))


def gather_unequally_many_rows(rank: int) -> None:
    with pytest.raises(ValueError, match="all processes must have equally many rows, got 3, 4"):
        gather(torch.zeros(3 + rank, 5))


def contrastive_losses(rank: int) -> None:
    """The mean of the processes' losses, and of their gradients, are those of the whole batch."""
    for groups in (None, torch.tensor([5, 1, 5, 2, 5, 1])):
        whole = [F.normalize(noise(6, 7, seed=i).detach(), dim=-1).requires_grad_() for i in range(2)]
        scale = torch.tensor(1 / 0.07, requires_grad=True)
        expected = reference.contrastive_loss(*whole, scale, range(6) if groups is None else groups.tolist())
        expected_gradients = torch.autograd.grad(expected, (*whole, scale))

        own = [own_rows(x).detach().requires_grad_() for x in whole]
        loss = contrastive_loss(*own, scale, groups=None if groups is None else own_rows(groups))
        *gradients, of_scale = torch.autograd.grad(loss, (*own, scale))
        for found, known in ((loss.detach(), expected), (of_scale, expected_gradients[-1])):
            dist.all_reduce(found)
            torch.testing.assert_close(found / NUM_PROCESSES, known, atol=1e-5, rtol=0)
        for found, known in zip(gradients, expected_gradients):
            torch.testing.assert_close(found / NUM_PROCESSES, own_rows(known), atol=1e-5, rtol=0)
