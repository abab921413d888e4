"""How a step is computed: precision, memory, compilation. What is learned is the same, but for rounding."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum

import torch
from torch import nn

from coca_video.errors import InputError
from coca_video.layers.transformer import Block
from coca_video.models.coca import CoCa


class Precision(str, Enum):
    float32 = "float32"
    bfloat16 = "bfloat16"  # products alone (autocast); weights, norms' sums and losses stay float32


class Accumulation(str, Enum):
    cached = (
        "cached"  # exact: embeddings first, then each micro-batch once more (GradCache, arXiv 2101.06983)
    )
    separate = "separate"  # each micro-batch has its own negatives alone: one pass, another contrastive loss


@dataclass
class ComputeConfig:
    precision: Precision = Precision.float32
    micro_batch_size: int = 0  # clips that pass the model at a time, in each process; 0 = all of its share
    accumulation: Accumulation = Accumulation.cached  # of micro-batches
    recompute: bool = (
        False  # blocks keep their inputs alone (activation checkpointing): less memory, 4/3 time
    )
    compile: bool = False  # torch.compile, block by block

    def __post_init__(self) -> None:
        if self.micro_batch_size < 0:
            raise ValueError(f"micro_batch_size must not be negative, got {self.micro_batch_size}")


def check(model: CoCa, config: ComputeConfig) -> None:
    """Raises InputError for micro-batches of a model with batch norm, which would see another batch."""
    norms = [name for name, part in model.named_modules() if isinstance(part, nn.BatchNorm2d)]
    if config.micro_batch_size and norms:
        reason = f"{norms[0]} (model.image.stem=conv) needs the statistics of the whole batch"
        raise InputError(f"loop.compute.micro_batch_size must be 0, got {config.micro_batch_size}: {reason}")


def prepare(model: CoCa, config: ComputeConfig) -> None:
    """Sets the model's blocks up; raises as `check` does."""
    check(model, config)
    for block in model.modules():
        if isinstance(block, Block):
            block.recompute = config.recompute
            if config.compile:
                block.compile()


def autocast(config: ComputeConfig, device: torch.device) -> AbstractContextManager:
    """Within, products are computed in the configured precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision is Precision.bfloat16)
