"""A batch to take training steps on, alone or in two processes."""

import pytest
import torch
import torch.distributed as dist
from tiny import coca, texts
from torch.nn.parallel import DistributedDataParallel

from coca_video.data.samples import Batch
from coca_video.models.coca import CoCa
from coca_video.training.gradients import ModelCall, clip_gradients, compute_gradients
from coca_video.training.optim import OptimizerConfig, build_optimizer
from coca_video.training.regimes import freeze_all_but, reached_parameters
from coca_video.training.step import Inputs, LossConfig


def batch(num_frames: int = 3, *, seed: int = 0) -> Batch:
    """Three clips, the second one frame shorter; the first and the last have the same text."""
    ids, text_mask = texts(6, 4, 6, seed=seed)
    ids[2] = ids[0]
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (3, num_frames, 3, 16, 16), generator=generator).byte()
    frame_mask = torch.ones(3, num_frames, dtype=torch.bool)
    frame_mask[1, -1] = False
    return Batch(frames, frame_mask, ids, text_mask, torch.tensor([0, 1, 0]), keys=["a", "b", "c"])


def distributed_steps(rank: int, meeting: str, configs: list[LossConfig]) -> None:
    """One of two processes, each with a batch of its own: their weights stay the same.

    It is the freezing that makes it work: DistributedDataParallel, which is not told to look for parameters
    without a gradient, refuses the second step where they ask for one.
    """
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    for config in configs:
        model = coca()
        freeze_all_but(model, reached_parameters(model.config, config))
        _two_steps(model, batch(seed=rank), config)
        for name, weight in model.named_parameters():
            first = weight.detach().clone()
            dist.broadcast(first, 0)
            assert torch.equal(first, weight), name
        with pytest.raises(RuntimeError, match="Expected to have finished reduction"):
            _two_steps(coca(), batch(seed=rank), config)
    dist.destroy_process_group()


def _two_steps(model: CoCa, given: Batch, config: LossConfig) -> None:
    call = DistributedDataParallel(ModelCall(model))
    optimizer = build_optimizer(model, OptimizerConfig())
    for _ in range(2):
        optimizer.zero_grad()
        compute_gradients(call, model, Inputs.of(given, given.frames / 255), config)
        clip_gradients(list(model.parameters()), 1.0)
        optimizer.step()
