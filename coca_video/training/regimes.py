"""What a run trains: tuning regimes by name, over the groups of a model's parameters."""

from collections.abc import Collection
from dataclasses import dataclass, fields
from enum import Enum

import torch
from torch import Tensor

from coca_video.data.captions import Caption
from coca_video.errors import InputError
from coca_video.models.coca import CoCa, CoCaConfig
from coca_video.tasks.task import Task, TaskInputs
from coca_video.training.optim import GroupConfigs, group_of
from coca_video.training.step import LossConfig


class Regime(str, Enum):
    """The first four are VideoCoCa's (arXiv 2212.04979); it found lit the best."""

    full = "full"  # everything
    poolers = "poolers"  # the poolers, and the temporal part
    poolers_then_full = "poolers_then_full"  # one after the other, as if in two runs
    lit = "lit"  # everything but the image encoder
    temporal = "temporal"  # what the adaptor adds to an image model
    heads = "heads"  # the last linear maps and the temperature
    task_head = "task_head"  # a task's head alone: everything that was there before is frozen


TASK_HEAD = frozenset({"task_head"})  # is new, and learns with every regime
ALL = frozenset(field.name for field in fields(GroupConfigs))
# The temporal part is new in a model that comes from pictures: frozen, it would stay as it began.
POOLERS = frozenset({"poolers", "temporal"})

# The groups that each phase of a regime trains.
PHASES = {
    Regime.full: [ALL],
    Regime.poolers: [POOLERS],
    Regime.poolers_then_full: [POOLERS, ALL],
    Regime.lit: [ALL - {"image_encoder"}],
    Regime.temporal: [frozenset({"temporal"})],
    Regime.heads: [frozenset({"heads"})],
    Regime.task_head: [TASK_HEAD],
}


@dataclass
class TuningConfig:
    regime: Regime = Regime.full
    first_share: float = 0.5  # of the steps, those of poolers_then_full's first phase

    def __post_init__(self) -> None:
        if not 0 < self.first_share < 1:
            raise ValueError(f"first_share must be between 0 and 1, got {self.first_share}")


@dataclass
class Phase:
    """Steps in a row that train the same parameters, with a warm-up and a decay of their own."""

    first: int  # step
    num_steps: int
    trained: frozenset[str]  # names of parameters

    def summary(self, model: CoCa) -> str:
        """'steps 0 to 299 train poolers: 0.6M of 5.0M parameters; frozen: image_encoder, ...'."""
        sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
        trained = sum(sizes[name] for name in self.trained)
        groups = dict.fromkeys(group_of(name) for name in sizes if name in self.trained)
        frozen = dict.fromkeys(group_of(name) for name in sizes if name not in self.trained)
        rest = ", ".join(f"{group} in part" if group in groups else group for group in frozen)
        return (
            f"steps {self.first} to {self.first + self.num_steps - 1} train {', '.join(groups)}: "
            f"{trained / 1e6:.1f}M of {sum(sizes.values()) / 1e6:.1f}M parameters"
            + (f"; frozen: {rest}" if rest else "")
        )


def plan_phases(
    model: CoCaConfig, tuning: TuningConfig, *, num_steps: int, reached: Collection[str]
) -> list[Phase]:
    """What is trained when: the regime's groups, less what the losses do not reach (`reached_parameters`).

    Raises InputError for a regime that would train nothing, and for too few steps for its phases.
    """
    groups = PHASES[tuning.regime]
    starts = [0, round(num_steps * tuning.first_share)][: len(groups)]
    lengths = [end - start for start, end in zip(starts, [*starts[1:], num_steps])]
    if min(lengths) < 1:
        found = f"{num_steps} with loop.tuning.first_share {tuning.first_share}"
        raise InputError(f"loop.num_steps: {tuning.regime.value} needs a step for each phase, got {found}")
    phases = []
    for start, length, trained in zip(starts, lengths, groups):
        names = frozenset(name for name in reached if group_of(name) in trained | TASK_HEAD)
        if not names:
            adaptor = f"model.temporal.adaptor={model.temporal.adaptor.value}"
            reason = f"the losses reach no weights of {', '.join(sorted(trained))} with {adaptor}"
            raise InputError(f"loop.tuning.regime={tuning.regime.value} would train nothing: {reason}")
        phases.append(Phase(start, length, names))
    return phases


def reached_parameters(config: CoCaConfig, loss: LossConfig) -> list[str]:
    """Names of the parameters that a loss of some weight depends on, as autograd tells.

    The others must be frozen: distributed training waits for the gradient of each one that is not.
    """
    size = config.image.image_size
    with torch.device("meta"):  # no values are needed
        model = CoCa(config)
        frames = torch.empty(1, 2, 3, size, size)
        ids, text_mask = torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 3, dtype=torch.bool)
        memory, video = model.pool(model.encode_frames(frames))
        read = []
        if loss.caption_weight:
            read.append(model.caption_logits(memory, ids))
        if loss.contrastive_weight:
            read += [video, model.encode_text(ids, text_mask), model.heads.log_scale]
        total = sum(output.sum() for output in read)
    return _depended_on(model, total)


def reached_by_task(config: CoCaConfig, task: Task, like: Caption) -> list[str]:
    """As `reached_parameters`, of a task's weighted losses. like: what the task asks of some record."""
    size, targets = config.image.image_size, like.target.unsqueeze(0).to("meta")
    with torch.device("meta"):
        model = CoCa(config)
        model.task_head = task.head(config)
        frames = torch.empty(1, 2, 3, size, size)  # a clip, or a pair
        frame_mask = torch.ones(1, 2, dtype=torch.bool)
        ids, text_mask = torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 3, dtype=torch.bool)
        tokens = task.tokens(model, frame_mask, lambda: model.encode_frames(frames))
        inputs = TaskInputs(tokens, frame_mask, ids, text_mask, text_mask, targets)
        total = task.weighted(task.losses(model, inputs)).sum()
    return _depended_on(model, total)


def _depended_on(model: CoCa, total: Tensor) -> list[str]:
    names, parameters = zip(*model.named_parameters())
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    return [name for name, gradient in zip(names, gradients) if gradient is not None]


def freeze_all_but(model: CoCa, trained: Collection[str]) -> None:
    """Training mode for the groups with trained parameters, eval mode for the others.

    A frozen group thus has no dropout, and its batch norms keep their statistics.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    model.train()
    for group in model.children():
        group.train(any(parameter.requires_grad for parameter in group.parameters()))
