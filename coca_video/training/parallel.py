"""Several processes that train one model: replicated, or with its weights shared out."""

import gc
import warnings
from dataclasses import dataclass
from enum import Enum

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from coca_video.layers.transformer import Block
from coca_video.models.coca import CoCa
from coca_video.ops.distributed import num_processes
from coca_video.training.compute import Precision
from coca_video.training.gradients import ModelCall


class Sharing(str, Enum):
    ddp = "ddp"  # every process holds the model (DistributedDataParallel)
    fsdp = "fsdp"  # weights, gradients and the optimizer's state are shared out (fully_shard)


@dataclass
class ParallelConfig:
    """Of no effect in a process that runs alone."""

    sharing: Sharing = Sharing.ddp
    reshard: bool = True  # fsdp: a block's weights are gathered again for the backward pass: less memory


class ParallelModel:
    """A model as one process of several trains it."""

    def __init__(self, model: CoCa, config: ParallelConfig, *, precision: Precision):
        self.model, self.config = model, config
        self.is_alone = num_processes() == 1
        self.is_sharded = not self.is_alone and config.sharing is Sharing.fsdp
        self.call: nn.Module = ModelCall(model)
        # fully_shard knows no scalars: the temperature is every process' own, and its gradient averaged here.
        self._scalars = {parameter for parameter in model.parameters() if parameter.ndim == 0}
        if self.is_sharded:
            _shard(self.call, config, precision=precision, ignored=self._scalars)

    def begin_phase(self) -> None:
        """After parameters have been frozen or freed: who waits for gradients must know which will come."""
        if self.is_alone or self.is_sharded:
            return
        # The wrapper of the phase before has the memory of a whole gradient, and refers to itself.
        self.call = ModelCall(self.model)
        gc.collect()
        device = next(self.model.parameters()).device
        devices = [device.index] if device.type == "cuda" else None
        how = {"device_ids": devices, "gradient_as_bucket_view": True}
        with warnings.catch_warnings():
            # Statistics of batch norm are alike anyhow. What replaces the option is not in older torches.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            self.call = DistributedDataParallel(self.call, broadcast_buffers=False, **how)

    def finish_gradients(self) -> None:
        """After the backward pass: what the wrapper has not averaged."""
        if self.is_sharded:
            for parameter in self._scalars:
                if parameter.grad is not None:
                    _average_(parameter.grad)


def _shard(
    call: ModelCall, config: ParallelConfig, *, precision: Precision, ignored: set[nn.Parameter]
) -> None:
    """Each block is gathered when its turn comes, all else once a step.

    Blocks compute in bfloat16 under autocast anyhow: their weights then travel so, at half the cost. Those of
    their norms, which are computed in float32, are few, and travel as they are.
    """
    low = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    is_low = precision is Precision.bfloat16
    for parameter in call.parameters():  # fully_shard takes no others: a convolution may be channels_last
        parameter.data = parameter.data.contiguous()
    # Of the model's device: by itself fully_shard takes an accelerator where there is one.
    device = next(call.parameters()).device.type
    mesh = init_device_mesh(device, (num_processes(),))
    for block in call.modules():
        if isinstance(block, Block):
            if is_low:
                norms = [part for part in block.modules() if isinstance(part, nn.LayerNorm)]
                fully_shard(norms, mesh=mesh, reshard_after_forward=False)
            policy = low if is_low else MixedPrecisionPolicy()
            fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=config.reshard)
    fully_shard(call, mesh=mesh, reshard_after_forward=False, ignored_params=ignored)


def _average_(x: Tensor) -> None:
    dist.all_reduce(x)
    x /= num_processes()
