"""Optimizers and learning-rate schedules."""

import math
from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


class OptimizerName(str, Enum):
    adamw = "adamw"
    adafactor = "adafactor"  # torch's: factored second moments as in CoCa, but without its beta1 of 0.9


class Schedule(str, Enum):
    cosine = "cosine"
    linear = "linear"  # CoCa, section 4.1


@dataclass
class GroupConfig:
    """What a group of parameters has of its own; None = as the others."""

    lr: float | None = None
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        if self.lr is not None and self.lr <= 0:
            hint = "loop.tuning.regime freezes groups"
            raise ValueError(f"a group's lr must be positive, got {self.lr}; {hint}")
        if self.weight_decay is not None and self.weight_decay < 0:
            raise ValueError(f"a group's weight_decay must not be negative, got {self.weight_decay}")


@dataclass
class GroupConfigs:
    """The groups are CoCa's parts: the names of its modules."""

    image_encoder: GroupConfig = field(default_factory=GroupConfig)
    poolers: GroupConfig = field(default_factory=GroupConfig)
    temporal: GroupConfig = field(default_factory=GroupConfig)
    unimodal: GroupConfig = field(default_factory=GroupConfig)
    multimodal: GroupConfig = field(default_factory=GroupConfig)
    heads: GroupConfig = field(default_factory=GroupConfig)


@dataclass
class OptimizerConfig:
    name: OptimizerName = OptimizerName.adamw
    lr: float = 8e-4
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])  # AdamW only
    weight_decay: float = 0.01
    num_warmup_steps: int = 20
    schedule: Schedule = Schedule.cosine
    clip_norm: float = 1.0  # of the whole gradient; 0 = no clipping
    groups: GroupConfigs = field(default_factory=GroupConfigs)

    def __post_init__(self) -> None:
        if len(self.betas) != 2:
            raise ValueError(f"betas must be two numbers, got {self.betas}")


def group_of(parameter: str) -> str:
    """The group that a parameter is in, by its name in CoCa."""
    return parameter.partition(".")[0]


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Of the parameters that ask for a gradient, each group of the model with its own rate and decay.

    Weight decay reaches matrices only, not biases, norms, or the temperature.
    """
    members: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            members.setdefault((group_of(name), parameter.ndim > 1), []).append(parameter)
    groups = []
    for (name, is_matrix), parameters in members.items():
        own: GroupConfig = getattr(config.groups, name)
        lr = config.lr if own.lr is None else own.lr
        decay = config.weight_decay if own.weight_decay is None else own.weight_decay
        groups.append({"params": parameters, "lr": lr, "weight_decay": decay if is_matrix else 0.0})
    if config.name is OptimizerName.adafactor:
        return torch.optim.Adafactor(groups, lr=config.lr)
    return torch.optim.AdamW(groups, lr=config.lr, betas=tuple(config.betas), fused=True)


def build_schedule(optimizer: torch.optim.Optimizer, config: OptimizerConfig, *, num_steps: int) -> LambdaLR:
    """Linear warm-up, then cosine or linear decay to zero at num_steps, of each group's own rate."""

    def factor(step: int) -> float:
        if step < config.num_warmup_steps:
            return (step + 1) / config.num_warmup_steps
        left = 1 - (step - config.num_warmup_steps) / max(1, num_steps - config.num_warmup_steps)
        return max(0.0, left if config.schedule is Schedule.linear else 0.5 - 0.5 * math.cos(math.pi * left))

    return LambdaLR(optimizer, factor)
