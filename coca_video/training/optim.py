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
class OptimizerConfig:
    name: OptimizerName = OptimizerName.adamw
    lr: float = 8e-4
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])  # AdamW only
    weight_decay: float = 0.01
    num_warmup_steps: int = 20
    schedule: Schedule = Schedule.cosine
    clip_norm: float = 1.0  # of the whole gradient; 0 = no clipping

    def __post_init__(self) -> None:
        if len(self.betas) != 2:
            raise ValueError(f"betas must be two numbers, got {self.betas}")


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Weight decay reaches matrices only, not biases, norms, or the temperature."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.name is OptimizerName.adafactor:
        return torch.optim.Adafactor(groups, lr=config.lr)
    return torch.optim.AdamW(groups, lr=config.lr, betas=tuple(config.betas), fused=True)


def build_schedule(optimizer: torch.optim.Optimizer, config: OptimizerConfig, *, num_steps: int) -> LambdaLR:
    """Linear warm-up, then cosine or linear decay to zero at num_steps."""

    def factor(step: int) -> float:
        if step < config.num_warmup_steps:
            return (step + 1) / config.num_warmup_steps
        left = 1 - (step - config.num_warmup_steps) / max(1, num_steps - config.num_warmup_steps)
        return max(0.0, left if config.schedule is Schedule.linear else 0.5 - 0.5 * math.cos(math.pi * left))

    return LambdaLR(optimizer, factor)
