"""Sharded parameters that are pulled to their starts: here, where a spawned process can import it."""

from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from optimizer_processes import Model, build_sharded_model, give_gradients, whole
from torch import Tensor, nn

from coca_video.training.anchor import Anchor
from coca_video.training.optim import OptimizerConfig, build_optimizer

CONFIG = OptimizerConfig(lr=0.01, betas=[0.9, 0.99], weight_decay=0.1, anchor=20.0)
NUM_STEPS = 4


def weights_after_steps(model: nn.Module) -> dict[str, Tensor]:
    """Pulled to weights that a checkpoint has brought, as when a run goes on: all that `new` has, doubled."""
    anchor = Anchor(model, CONFIG, trained=trained_of(model))
    anchor.load_state_dict({name: 2 * start for name, start in anchor.state_dict().items()})
    optimizer = build_optimizer(model, CONFIG)
    for step in range(NUM_STEPS):
        give_gradients(model, step)
        optimizer.step()
        anchor.pull(optimizer)
    return whole(model.state_dict())


def trained_of(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def shards_give_the_same(_: int) -> None:
    found, expected = weights_after_steps(build_sharded_model()), weights_after_steps(Model())
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def save_starts(folder: Path, _: int) -> None:
    """Of shards, for one process to take up."""
    model = build_sharded_model()
    dcp.save(Anchor(model, CONFIG, trained=trained_of(model)).state_dict(), checkpoint_id=folder)
