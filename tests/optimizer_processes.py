"""Optimizers and averages of sharded parameters: here, where a spawned process can import it."""

from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from coca_video.training.average import Average
from coca_video.training.optim import OptimizerConfig, OptimizerName, build_optimizer

NUM_STEPS, SAVED_AT, DECAY = 10, 6, 0.7
SHAPES = {
    "matrix": (33, 40),  # factored; its rows cannot be shared out evenly
    "kernel": (48, 3, 2, 36),  # over the first dimension and the last
    "apart": (3, 40, 34),  # over others than the first
    "row": (1, 40),  # one process has nothing of it
    "vector": (33,),
    "scalar": (),
    "frozen": (33, 40),
}


class Model(nn.Module):
    """A group of parameters of all kinds; fully_shard asks that it could be called."""

    def __init__(self):
        super().__init__()
        self.heads = nn.ParameterDict()
        for seed, (name, shape) in enumerate(SHAPES.items()):
            values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
            self.heads[name] = nn.Parameter(values, requires_grad=name != "frozen")

    def forward(self) -> None:
        raise NotImplementedError


def build_sharded_model() -> Model:
    model = Model()
    fully_shard(model, ignored_params={model.heads["scalar"]})
    return model


def build_own_optimizer(name: OptimizerName, model: nn.Module) -> torch.optim.Optimizer:
    config = OptimizerConfig(name, lr=0.01, betas=[0.9, 0.99], weight_decay=0.1)
    return build_optimizer(model, config)


def give_gradients(model: nn.Module, step: int) -> None:
    """Those of step n are the same however the model is shared out."""
    for i, parameter in enumerate(model.parameters()):
        if parameter.requires_grad:
            generator = torch.Generator().manual_seed(100 * step + i)
            gradient = (step + 1) * torch.randn(parameter.shape, generator=generator)
            if isinstance(parameter, DTensor):
                gradient = distribute_tensor(gradient, parameter.device_mesh, parameter.placements)
            parameter.grad = gradient


def run(
    model: nn.Module, optimizer: torch.optim.Optimizer, average: Average, *, first: int, last: int
) -> None:
    for step in range(first, last):
        give_gradients(model, step)
        optimizer.step()
        average.update(model)


def checkpoint(model: nn.Module, optimizer: torch.optim.Optimizer, average: Average) -> dict:
    optimizer.zero_grad()  # what is asked for below must not depend on a gradient being there
    parts = {"model": model.state_dict(), "average": average.state_dict()}
    return parts | {"optimizer": get_optimizer_state_dict(model, optimizer)}


def take_up(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: Average) -> None:
    """Into a model, an optimizer and an average that are new."""
    state = checkpoint(model, optimizer, average)
    dcp.load(state, checkpoint_id=folder, no_dist=not dist.is_initialized())
    model.load_state_dict(state["model"])
    set_optimizer_state_dict(model, optimizer, state["optimizer"])
    average.load_state_dict(state["average"], num_updates=SAVED_AT)


def whole(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: (x.full_tensor() if isinstance(x, DTensor) else x).detach().clone() for n, x in state.items()}


def train_sharded(rank: int, num: int, folder: Path) -> None:
    """One of `num` processes: all steps of each optimizer, saved on the way; and those after what one process
    has saved.
    """
    torch.set_num_threads(1)
    meeting = f"file://{folder / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=num)
    for name in OptimizerName:
        outcome = {}
        for begins in ("new", "taken up"):
            model = build_sharded_model()
            optimizer, average = build_own_optimizer(name, model), Average(model, DECAY)
            if begins == "new":
                run(model, optimizer, average, first=0, last=SAVED_AT)
                saved = checkpoint(model, optimizer, average)
                dcp.save(saved, checkpoint_id=folder / f"sharded-{name.value}")
            else:
                take_up(folder / f"whole-{name.value}", model, optimizer, average)
            run(model, optimizer, average, first=SAVED_AT, last=NUM_STEPS)
            outcome[begins] = whole(model.state_dict()), whole(average.state_dict())
        if rank == 0:
            torch.save(outcome, folder / f"outcome-{name.value}.pt")
    dist.destroy_process_group()
