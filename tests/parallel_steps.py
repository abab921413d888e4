"""Ten steps of a tiny model, alone or in several processes: here, where a spawned process can import it."""

import itertools
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.distributed as dist
from tiny import coca, image_config, texts
from torch import Tensor
from torch.distributed.tensor import DTensor

from coca_video.data.samples import Batch
from coca_video.ops.distributed import num_processes, rank, sum_over_processes
from coca_video.training.compute import Accumulation, ComputeConfig, Precision, autocast
from coca_video.training.gradients import clip_gradients, compute_gradients
from coca_video.training.parallel import ParallelConfig, ParallelModel, Sharing
from coca_video.training.regimes import freeze_all_but, reached_parameters
from coca_video.training.step import Inputs, LossConfig

# Rows of each global batch: divisible by 2 and 4 or not, and at last fewer than four processes.
ROWS = [8, 7, 4, 5, 8, 9, 4, 6, 4, 3]


CONV = {"image": image_config(stem="conv", num_layers=1)}  # with batch norm


@dataclass
class Case:
    sharing: Sharing = Sharing.ddp
    ring: bool = False
    micro_batch_size: int = 0
    accumulation: Accumulation = Accumulation.cached
    contrastive_weight: float = 1.0
    caption_weight: float = 2.0
    model: dict = field(default_factory=dict)
    precision: Precision = Precision.float32


def plain_of(case: Case) -> Case:
    """The same learning in one pass of one process."""
    return replace(case, sharing=Sharing.ddp, ring=False, micro_batch_size=0)


def cases() -> list[Case]:
    """All ways to share and exchange, in one pass and in micro-batches; and what else may differ."""
    every = [Case(*how) for how in itertools.product(Sharing, (False, True), (0, 2))]
    for sharing in Sharing:
        every.append(Case(sharing, micro_batch_size=2, contrastive_weight=0.0, accumulation="separate"))
        every.append(Case(sharing, micro_batch_size=2, caption_weight=0.0))
    every.append(Case(Sharing.ddp, model=CONV))
    every.append(Case(Sharing.fsdp, model=CONV))
    every += [Case(sharing, precision=Precision.bfloat16) for sharing in Sharing]
    return every


def global_batch(step: int) -> Batch:
    """Clips of one to three frames, texts of uneven length; some texts are equal."""
    num_rows, generator = ROWS[step], torch.Generator().manual_seed(step)
    lengths = torch.randint(3, 9, (num_rows,), generator=generator).tolist()
    ids, text_mask = texts(*lengths, seed=step)
    groups = torch.randint(0, 5, (num_rows,), generator=generator)
    frames = torch.randint(0, 256, (num_rows, 3, 3, 16, 16), generator=generator).byte()
    frame_mask = torch.arange(3) < torch.randint(1, 4, (num_rows, 1), generator=generator)
    return Batch(frames, frame_mask, ids, text_mask, groups, keys=[str(i) for i in range(num_rows)])


def share(batch: Batch) -> Batch:
    """This process' rows; a filler where there are none."""
    tensors = (batch.frames, batch.frame_mask, batch.ids, batch.text_mask, batch.groups)
    rows = torch.arange(len(batch)).tensor_split(num_processes())[rank()]
    is_filler = not len(rows)
    rows = rows if len(rows) else torch.zeros(1, dtype=torch.long)
    keys = [batch.keys[row] for row in rows]
    return Batch(*(x[rows] for x in tensors), keys=keys, is_filler=is_filler)


@dataclass
class Outcome:
    losses: list[dict[str, float]]
    gradients: dict[str, Tensor]  # of the first step
    norms: list[float]
    weights: dict[str, Tensor]


def train(case: Case) -> Outcome:
    model = coca(**{"image": image_config(num_layers=1), **case.model})
    config = LossConfig(case.caption_weight, case.contrastive_weight, ring=case.ring)
    freeze_all_but(model, reached_parameters(model.config, config))
    parallel = ParallelModel(model, ParallelConfig(case.sharing), precision=case.precision)
    parallel.begin_phase()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, eps=1e-4)
    losses, norms, gradients = [], [], {}
    for step in range(len(ROWS)):
        optimizer.zero_grad()
        given = share(global_batch(step))
        how = {"micro_batch_size": case.micro_batch_size, "accumulation": Accumulation(case.accumulation)}
        inputs = Inputs.of(given, given.frames / 255)
        with autocast(ComputeConfig(precision=case.precision), torch.device("cpu")):
            found = compute_gradients(parallel.call, model, inputs, config, **how)
        parallel.finish_gradients()
        if not step:
            gradients = {n: whole(p.grad).clone() for n, p in model.named_parameters() if p.grad is not None}
        losses.append({n: sum_over_processes(x).item() / num_processes() for n, x in found.items()})
        norms.append(clip_gradients(trained, 1.0).item())
        optimizer.step()
    return Outcome(losses, gradients, norms, {n: whole(p).detach() for n, p in model.named_parameters()})


def whole(x: Tensor) -> Tensor:
    return x.full_tensor() if isinstance(x, DTensor) else x


def train_cases(rank: int, num: int, meeting: str, some: list[Case], output: Path) -> None:
    """One of `num` processes; the first one writes what came out."""
    write_outcomes(rank, num, meeting, lambda: [train(case) for case in some], output)


def write_outcomes(rank: int, num: int, meeting: str, work: Callable[[], list], output: Path) -> None:
    """What `work` gives in the first of `num` processes that do it together, as dictionaries."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=num)
    outcomes = [vars(outcome) for outcome in work()]
    if rank == 0:
        torch.save(outcomes, output)
    dist.destroy_process_group()


def begin_two_phases(rank: int) -> None:
    """A wrapper has the memory of a whole gradient."""
    model = coca(image=image_config(num_layers=1))
    parallel = ParallelModel(model, ParallelConfig(), precision=Precision.float32)
    freeze_all_but(model, [name for name, _ in model.named_parameters() if name.startswith("heads.")])
    parallel.begin_phase()
    first = weakref.ref(parallel.call)
    parallel.begin_phase()
    assert first() is None
