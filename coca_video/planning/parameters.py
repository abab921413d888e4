"""A model's parameters by part, and the bytes of all that training holds for them."""

from collections.abc import Collection
from dataclasses import dataclass
from math import prod

import torch

from coca_video.layers.transformer import Block
from coca_video.models.coca import CoCa, CoCaConfig

FLOAT, HALF = 4, 2  # bytes
LEAST_FACTORED = 32  # rows and columns, of training's Adafactor


@dataclass(frozen=True)
class Parameters:
    shapes: dict[str, tuple[int, ...]]  # by names, the first part of which is the group
    largest_block: int  # parameters of the largest Block
    num_root: int  # parameters outside of all blocks
    num_cast: int  # of products: matrices, and the kernels of convolutions

    @property
    def total(self) -> int:
        return sum(prod(shape) for shape in self.shapes.values())

    def by_part(self) -> dict[str, int]:
        """The vocabulary's output matrix, 'heads.vocabulary', is a part of its own."""
        counts: dict[str, int] = {}
        for name, shape in self.shapes.items():
            part = "vocabulary" if name.startswith("heads.vocabulary") else name.partition(".")[0]
            counts[part] = counts.get(part, 0) + prod(shape)
        return counts

    def of_groups(self, groups: Collection[str] | None) -> list[tuple[int, ...]]:
        """Shapes; None = of all groups."""
        return [
            shape for name, shape in self.shapes.items() if groups is None or name.partition(".")[0] in groups
        ]


def count_parameters(config: CoCaConfig) -> Parameters:
    """Of a model on the meta device: nothing is allocated. Raises ValueError where sizes do not fit."""
    with torch.device("meta"):
        model = CoCa(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    blocks = [
        sum(p.numel() for p in part.parameters()) for part in model.modules() if isinstance(part, Block)
    ]
    total = sum(prod(shape) for shape in shapes.values())
    weights = [shape for name, shape in shapes.items() if name.endswith(".weight") and len(shape) > 1]
    num_cast = sum(map(prod, weights)) - prod(shapes["unimodal.tokens.weight"])  # an embedding is looked up
    return Parameters(shapes, max(blocks), total - sum(blocks), num_cast)


def optimizer_bytes(shapes: list[tuple[int, ...]], optimizer: str) -> int:
    """Of the moments. adamw: two in float32. adafactor (CoCa's): the first in bfloat16, the second factored.

    That is a row and a column of float32 of the two largest dimensions, or whole where one of them is small.
    """
    if optimizer == "adamw":
        return sum(2 * FLOAT * prod(shape) for shape in shapes)
    return sum(HALF * prod(shape) + FLOAT * _factored(shape) for shape in shapes)


def _factored(shape: tuple[int, ...]) -> int:
    *_, rows, columns = sorted((1, 1, *shape))
    if rows < LEAST_FACTORED:
        return prod(shape)
    return prod(shape) // rows + prod(shape) // columns


@dataclass(frozen=True)
class StateBytes:
    """Of one process."""

    weights: int
    gradients: int
    optimizer: int
    average: int
    working: int  # what is gathered, or cast, for a moment or for a step

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.average + self.working


def state_bytes(
    parameters: Parameters,
    *,
    optimizer: str,
    averaged: bool,
    bfloat16: bool,
    trained: Collection[str] | None = None,
    shared_by: int = 1,
) -> StateBytes:
    """shared_by: processes that weights, gradients and states are sharded over (FSDP); 1 = each has all.

    trained: groups that learn; None = all.
    """
    learning = parameters.of_groups(trained)
    num_learning = sum(map(prod, learning))
    parts = {
        "weights": FLOAT * parameters.total,
        "gradients": FLOAT * num_learning,
        "optimizer": optimizer_bytes(learning, optimizer),
        "average": FLOAT * num_learning if averaged else 0,  # what is frozen has none
    }
    working = HALF * parameters.num_cast if bfloat16 else 0  # autocast keeps its copies for the whole step
    if shared_by > 1:
        parts = {name: -(-size // shared_by) for name, size in parts.items()}
        working = _gathered(parameters, bfloat16=bfloat16)
    return StateBytes(**parts, working=working)


def _gathered(parameters: Parameters, *, bfloat16: bool) -> int:
    """The root unit whole for a step, with its gradient; two blocks, as the next one is fetched ahead.

    A block's gradient is there in its own precision, and in float32 to be summed.
    """
    number = HALF if bfloat16 else FLOAT
    root = parameters.num_root * (2 * FLOAT + (HALF if bfloat16 else 0))
    return root + parameters.largest_block * (2 * number + number + FLOAT)
