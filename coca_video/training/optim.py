"""Optimizers and learning-rate schedules."""

import math
import re
from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from coca_video.training.adafactor import Adafactor

BLOCK = re.compile(r"image_encoder\.blocks\.(\d+)\.")


class OptimizerName(str, Enum):
    adamw = "adamw"
    adafactor = "adafactor"  # CoCa, section 4.1, with betas [0.9, 0.999]


class Schedule(str, Enum):
    cosine = "cosine"
    linear = "linear"  # CoCa, section 4.1
    constant = "constant"
    rsqrt = "rsqrt"  # over the root of the step (arXiv 1706.03762, section 5.3): knows no end


ENDING = (Schedule.cosine, Schedule.linear)


@dataclass
class GroupConfig:
    """What a group of parameters has of its own; None = as the others."""

    lr: float | None = None
    weight_decay: float | None = None
    anchor: float | None = None

    def __post_init__(self) -> None:
        if self.lr is not None and self.lr <= 0:
            hint = "loop.tuning.regime freezes groups"
            raise ValueError(f"a group's lr must be positive, got {self.lr}; {hint}")
        if self.weight_decay is not None and self.weight_decay < 0:
            raise ValueError(f"a group's weight_decay must not be negative, got {self.weight_decay}")
        if self.anchor is not None and self.anchor < 0:
            raise ValueError(f"a group's anchor must not be negative, got {self.anchor}")


@dataclass
class GroupConfigs:
    """The groups are CoCa's parts: the names of its modules."""

    image_encoder: GroupConfig = field(default_factory=GroupConfig)
    poolers: GroupConfig = field(default_factory=GroupConfig)
    temporal: GroupConfig = field(default_factory=GroupConfig)
    unimodal: GroupConfig = field(default_factory=GroupConfig)
    multimodal: GroupConfig = field(default_factory=GroupConfig)
    heads: GroupConfig = field(default_factory=GroupConfig)
    task_head: GroupConfig = field(default_factory=GroupConfig)  # of a task, where there is one


@dataclass
class OptimizerConfig:
    """layer_decay: of the image encoder's rates with depth, 1 = none (BEiT, arXiv 2106.08254). Block i of n,
    from 0, has layer_decay ** (n - i) of the rate, what comes before the blocks layer_decay ** (n + 1), and
    the norm behind them all of it.
    """

    name: OptimizerName = OptimizerName.adamw
    lr: float = 8e-4
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])  # Adafactor: the second is a cap
    eps: float | None = None  # None = the optimizer's own: AdamW 1e-8, Adafactor 1e-30
    weight_decay: float = 0.01
    num_warmup_steps: int = 20
    warmup_share: float | None = None  # of all steps, in place of num_warmup_steps
    schedule: Schedule = Schedule.cosine
    final_share: float = 0.0  # of the rate, that cosine and linear end at
    layer_decay: float = 1.0
    clip_norm: float = 1.0  # of the whole gradient; 0 = no clipping
    anchor: float = 0.0  # pull to the weights that the run began with, as a weight decay; 0 = none
    groups: GroupConfigs = field(default_factory=GroupConfigs)

    def __post_init__(self) -> None:
        if len(self.betas) != 2:
            raise ValueError(f"betas must be two numbers, got {self.betas}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be in [0, 1), got {self.betas}")
        if self.eps is not None and self.eps <= 0:
            raise ValueError(f"eps must be positive, got {self.eps}")
        if self.num_warmup_steps < 0:
            raise ValueError(f"num_warmup_steps must not be negative, got {self.num_warmup_steps}")
        if self.warmup_share is not None and not 0 <= self.warmup_share <= 1:
            raise ValueError(f"warmup_share must be in [0, 1], got {self.warmup_share}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must be above 0 and at most 1, got {self.layer_decay}")
        if not 0 <= self.final_share <= 1:
            raise ValueError(f"final_share must be in [0, 1], got {self.final_share}")
        if self.final_share and self.schedule not in ENDING:
            allowed = " and ".join(schedule.value for schedule in ENDING)
            raise ValueError(f"final_share is for {allowed}, got schedule {self.schedule.value}")
        if self.anchor < 0:
            raise ValueError(f"anchor must not be negative, got {self.anchor}")
        for group in vars(self.groups):
            if (pull := rate_of(self, group) * anchor_of(self, group)) > 1:
                raise ValueError(f"anchor times lr must be at most 1, got {pull:g} for {group}")


def group_of(parameter: str) -> str:
    """The group that a parameter is in, by its name in CoCa."""
    return parameter.partition(".")[0]


def rate_of(config: OptimizerConfig, group: str) -> float:
    """A group's own learning rate, or that of all."""
    own: GroupConfig = getattr(config.groups, group)
    return config.lr if own.lr is None else own.lr


def anchor_of(config: OptimizerConfig, group: str) -> float:
    """A group's own strength of the pull to its start, or that of all."""
    own: GroupConfig = getattr(config.groups, group)
    return config.anchor if own.anchor is None else own.anchor


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Of the parameters that ask for a gradient, each group of the model with its own rate and decay.

    Weight decay reaches matrices only, not biases, norms, or the temperature. The optimizer's groups have the
    names of the model's but are finer: layers where rates decay with depth; and scalars, which fully_shard
    leaves whole, as a fused update takes either sharded parameters or whole ones.
    """
    num_blocks = len({block[1] for name, _ in model.named_parameters() if (block := BLOCK.match(name))})
    members: dict[tuple[str, int, int], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            depth = depth_of(name, num_blocks) if config.layer_decay < 1 else 0
            members.setdefault((group_of(name), depth, min(parameter.ndim, 2)), []).append(parameter)
    groups = []
    for (name, depth, num_dims), parameters in members.items():
        own: GroupConfig = getattr(config.groups, name)
        lr = rate_of(config, name) * config.layer_decay**depth
        decay = config.weight_decay if own.weight_decay is None else own.weight_decay
        settings = {"name": name, "lr": lr, "initial_lr": lr, "weight_decay": decay if num_dims == 2 else 0.0}
        groups.append({"params": parameters, **settings})
    settings = {"lr": config.lr, "betas": tuple(config.betas)}
    if config.eps is not None:
        settings["eps"] = config.eps
    if config.name is OptimizerName.adafactor:
        return Adafactor(groups, **settings)
    optimizer = torch.optim.AdamW(groups, **settings, fused=True)
    _begin_state(optimizer)
    return optimizer


def _begin_state(optimizer: torch.optim.AdamW) -> None:
    """What the first step would begin with: a checkpoint before it is then as complete as a later one.

    torch.distributed.checkpoint would make a step with a gradient of zero to have something to save.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.zeros((), device=parameter.device)} | moments


def depth_of(parameter: str, num_blocks: int) -> int:
    """By how many layers the image encoder of so many blocks goes on behind it; 0 outside of that encoder."""
    if group_of(parameter) != "image_encoder" or parameter.startswith("image_encoder.norm."):
        return 0
    block = BLOCK.match(parameter)
    return num_blocks - int(block[1]) if block else num_blocks + 1


def rate_share(config: OptimizerConfig, step: int, *, num_steps: int) -> float:
    """What each group's rate is multiplied with at a step of num_steps."""
    num_warmup_steps = config.num_warmup_steps
    if config.warmup_share is not None:
        num_warmup_steps = round(config.warmup_share * num_steps)
    if step < num_warmup_steps:
        return (step + 1) / num_warmup_steps
    if config.schedule is Schedule.constant:
        return 1.0
    if config.schedule is Schedule.rsqrt:
        return math.sqrt(max(1, num_warmup_steps) / (step + 1))
    left = max(0.0, 1 - (step - num_warmup_steps) / max(1, num_steps - num_warmup_steps))
    share = left if config.schedule is Schedule.linear else 0.5 - 0.5 * math.cos(math.pi * left)
    return config.final_share + (1 - config.final_share) * share


def build_schedule(
    optimizer: torch.optim.Optimizer, config: OptimizerConfig, *, num_steps: int, step: int = 0
) -> LambdaLR:
    """Linear warm-up, then what config.schedule says up to num_steps, of each group's own rate.

    Sets the rates to those of `step`: a schedule has no state that would have to be saved.
    """
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"]
    return LambdaLR(optimizer, lambda n: rate_share(config, n, num_steps=num_steps), last_epoch=step - 1)


def last_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The present learning rate of each of the model's groups; where layers differ, the largest."""
    rates: dict[str, float] = {}
    for group in optimizer.param_groups:
        rates[group["name"]] = max(group["lr"], rates.get(group["name"], 0.0))
    return rates
