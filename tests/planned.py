"""What a training step costs, measured: the other side of what is planned."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from tiny import texts
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from coca_video.data.samples import Batch
from coca_video.models.coca import CoCa
from coca_video.planning.flops import StepShape
from coca_video.training.step import LossConfig, compute_losses

LOSSES = {"both": LossConfig(), "caption": LossConfig(2.0, 0.0), "contrast": LossConfig(0.0, 1.0)}


def batch(*, image_size: int = 16, num_frames: tuple[int, ...] = (3, 2, 3), lengths=(6, 4, 5)) -> Batch:
    """Clips and texts of uneven length."""
    ids, text_mask = texts(*lengths)
    frames = torch.randint(0, 256, (len(lengths), max(num_frames), 3, image_size, image_size)).byte()
    frame_mask = torch.arange(max(num_frames)) < torch.tensor(num_frames).unsqueeze(1)
    groups = torch.arange(len(lengths))
    return Batch(frames, frame_mask, ids, text_mask, groups, keys=[f"{i}" for i in groups.tolist()])


def shape_of(given: Batch) -> StepShape:
    image_size = None if given.frames is None else given.frames.shape[-1]
    return StepShape.of_masks(given.frame_mask, given.text_mask, image_size=image_size)


def loss_of(model: CoCa, given: Batch, config: LossConfig) -> Tensor:
    frames = None if given.frames is None else given.frames / 255
    return compute_losses(model, frames, given, config)["loss"]


@contextmanager
def counting() -> Iterator[FlopCounterMode]:
    """Attention must be composed of products to be seen, and torch does not know the product in place."""
    in_place = {torch.ops.aten.addmm_: _product_in_place}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter, sdpa_kernel(SDPBackend.MATH):
        yield counter


def counted_flops(model: CoCa, given: Batch, config: LossConfig) -> tuple[int, int]:
    """Of the forward and of the backward pass."""
    with counting() as counter:
        loss = loss_of(model, given, config)
        forward = counter.get_total_flops()
        loss.backward()
    return forward, counter.get_total_flops() - forward


def _product_in_place(total: torch.Size, a: torch.Size, b: torch.Size, **_) -> int:
    return 2 * a[0] * a[1] * b[1]


def saved_bytes(model: CoCa, given: Batch, config: LossConfig, *, bfloat16: bool) -> int:
    """What the backward pass needs of the forward pass: storages that autograd keeps.

    Weights aside, and their copies in bfloat16, which are known by their shapes.
    """
    own = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers())}
    weights = {tuple(sorted(parameter.shape)) for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}  # tensors, so that no address is used again

    def keep(x: Tensor) -> Tensor:
        is_copy = x.dtype == torch.bfloat16 and tuple(sorted(x.shape)) in weights
        if _storage(x) not in own and not is_copy:
            kept[_storage(x)] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            loss = loss_of(model, given, config)
    assert loss.requires_grad  # and has kept all of it alive until here
    return sum(x.untyped_storage().nbytes() for x in kept.values())


def _storage(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()
