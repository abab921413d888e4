"""What all processes know of a step, from what each of them has counted: one exchange a step."""

from dataclasses import dataclass

import torch
from torch import Tensor

from coca_video.data.samples import Batch
from coca_video.ops.distributed import num_processes, sum_over_processes
from coca_video.training.signals import Ending


@dataclass
class StepFigures:
    """Of the whole batch."""

    losses: dict[str, float]
    num_samples: int  # that took part
    num_bad: int  # that were left out
    flops: float
    waited_seconds: float  # the mean over processes
    wish: Ending | None  # of any process

    @property
    def num_seen(self) -> int:
        return self.num_samples + self.num_bad


def exchange(
    losses: dict[str, Tensor], batch: Batch, *, flops: float, waited_seconds: float, wish: Ending | None
) -> StepFigures:
    """All processes call, each with its own share. Ctrl-C counts before a scheduler's signal."""
    wishes = [wish is Ending.interrupted, wish is Ending.preempted]
    counted = [batch.num_real, len(batch.bad), flops, waited_seconds, *wishes]
    own = torch.tensor([*(value.item() for value in losses.values()), *counted], dtype=torch.float64)
    total = sum_over_processes(own).tolist()
    means = [value / num_processes() for value in total]
    num_real, num_bad, flops, _, interrupted, preempted = total[len(losses) :]
    asked = Ending.interrupted if interrupted else Ending.preempted if preempted else None
    waited = means[len(losses) + 3]
    return StepFigures(dict(zip(losses, means)), int(num_real), int(num_bad), flops, waited, asked)
