"""A batch to take training steps on, alone or in two processes."""

import pytest
import torch
import torch.distributed as dist
from tiny import coca, texts
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from coca_video.data.samples import Batch
from coca_video.training.optim import OptimizerConfig, build_optimizer
from coca_video.training.regimes import freeze_all_but, reached_parameters
from coca_video.training.step import LossConfig, compute_losses, update


def batch(num_frames: int = 3, *, seed: int = 0) -> Batch:
    """Three clips, the second one frame shorter; the first and the last have the same text."""
    ids, text_mask = texts(6, 4, 6, seed=seed)
    ids[2] = ids[0]
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (3, num_frames, 3, 16, 16), generator=generator).byte()
    frame_mask = torch.ones(3, num_frames, dtype=torch.bool)
    frame_mask[1, -1] = False
    return Batch(frames, frame_mask, ids, text_mask, torch.tensor([0, 1, 0]), keys=["a", "b", "c"])


class Losses(nn.Module):
    """The losses as a module, for that is what DistributedDataParallel wraps."""

    def __init__(self, config: LossConfig):
        super().__init__()
        self.model, self.config = coca(), config

    def forward(self, given: Batch) -> Tensor:
        return compute_losses(self.model, given.frames / 255, given, self.config)["loss"]


def distributed_steps(rank: int, meeting: str, configs: list[LossConfig]) -> None:
    """One of two processes, each with a batch of its own: their weights stay the same.

    It is the freezing that makes it work: DistributedDataParallel, which is not told to look for parameters
    without a gradient, refuses the second step where they ask for one.
    """
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    for config in configs:
        losses = Losses(config)
        freeze_all_but(losses.model, reached_parameters(losses.model.config, config))
        _two_steps(losses, batch(seed=rank))
        for name, weight in losses.model.named_parameters():
            first = weight.detach().clone()
            dist.broadcast(first, 0)
            assert torch.equal(first, weight), name
        with pytest.raises(RuntimeError, match="Expected to have finished reduction"):
            _two_steps(Losses(config), batch(seed=rank))
    dist.destroy_process_group()


def _two_steps(losses: Losses, given: Batch) -> None:
    distributed = DistributedDataParallel(losses)
    optimizer = build_optimizer(losses.model, OptimizerConfig())
    for _ in range(2):
        update(losses.model, distributed(given), optimizer, clip_norm=1.0)
