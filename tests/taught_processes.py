"""Steps of a tiny model that learns a task, alone or in processes: where a spawned process can import it."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from parallel_steps import CONV, whole, write_outcomes
from taught import all_tasks, batch_for, like, with_head
from tiny import coca, image_config
from torch import Tensor

from coca_video.data.samples import Batch
from coca_video.ops.distributed import num_processes, rank, sum_over_processes
from coca_video.tasks.task import Task
from coca_video.training.compute import ComputeConfig, Precision, autocast
from coca_video.training.gradients import compute_task_gradients
from coca_video.training.parallel import ParallelConfig, ParallelModel, Sharing
from coca_video.training.regimes import freeze_all_but, reached_by_task
from coca_video.training.step import Inputs

ROWS = [4, 3, 1]  # of each batch: for two processes shared evenly, unevenly, and one of them has none


@dataclass(frozen=True)
class Case:
    task: str
    sharing: Sharing = Sharing.ddp
    micro_batch_size: int = 0
    precision: Precision = Precision.float32
    is_blind: bool = False
    has_batch_norm: bool = False

    @property
    def plain(self) -> "Case":
        """The same learning in one pass of one process."""
        return replace(self, sharing=Sharing.ddp, micro_batch_size=0)

    def learned(self) -> Task:
        return next(each for each in all_tasks(blind=self.is_blind) if each.name == self.task)


CASES = [
    *(Case(name, micro_batch_size=2) for name in ("classification", "entailment")),
    *(Case(name, Sharing.fsdp, 2) for name in ("question_answering", "picture_pairs")),
    Case("picture_pairs"),
    Case("classification", has_batch_norm=True),
    Case("entailment", is_blind=True),
    Case("question_answering", Sharing.fsdp, precision=Precision.bfloat16),
]


@dataclass
class Outcome:
    losses: list[dict[str, float]]
    weights: dict[str, Tensor]


def share(batch: Batch) -> Batch:
    """This process' rows; a filler where there are none."""
    rows = torch.arange(len(batch)).tensor_split(num_processes())[rank()]
    is_filler = not len(rows)
    rows = rows if len(rows) else torch.zeros(1, dtype=torch.long)
    tensors = {name: x[rows] for name, x in vars(batch).items() if isinstance(x, Tensor)}
    return replace(batch, **tensors, keys=[batch.keys[row] for row in rows], is_filler=is_filler)


def learn(case: Case) -> Outcome:
    task = case.learned()
    model = coca(**(CONV if case.has_batch_norm else {"image": image_config(num_layers=1)}))
    with_head(model, task)
    freeze_all_but(model, reached_by_task(model.config, task, like(task)))
    parallel = ParallelModel(model, ParallelConfig(case.sharing), precision=case.precision)
    parallel.begin_phase()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, eps=1e-4)
    losses = []
    for step, num_rows in enumerate(ROWS):
        optimizer.zero_grad()
        given = share(batch_for(task, num_rows, seed=step))
        inputs = Inputs.of(given, given.frames / 255)
        with autocast(ComputeConfig(precision=case.precision), torch.device("cpu")):
            micro = {"micro_batch_size": case.micro_batch_size}
            found = compute_task_gradients(parallel.call, model, inputs, task, **micro)
        parallel.finish_gradients()
        losses.append({n: sum_over_processes(x).item() / num_processes() for n, x in found.items()})
        optimizer.step()
    return Outcome(losses, {n: whole(p).detach() for n, p in model.named_parameters()})


def learn_cases(rank: int, num: int, meeting: str, some: list[Case], output: Path) -> None:
    """One of `num` processes; the first one writes what came out."""
    write_outcomes(rank, num, meeting, lambda: [learn(case) for case in some], output)
