"""The gradient of a batch's loss, in one pass or in micro-batches, in one process or in several.

The losses are those of the whole batch of all processes. DistributedDataParallel and fully_shard average
gradients over processes: each one's loss is scaled so that the mean over them is the batch's.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from coca_video.losses import contrastive_loss
from coca_video.models.coca import CoCa
from coca_video.ops.distributed import gather, num_processes, sum_over_processes
from coca_video.tasks.task import Task
from coca_video.training.compute import Accumulation
from coca_video.training.seeds import seed_of
from coca_video.training.step import (
    Inputs,
    LossConfig,
    caption_loss_of,
    encoded,
    losses_of,
    outputs_of,
    task_losses_of,
    weighted_sum,
)


class ModelCall(nn.Module):
    """Calls work(model).

    DistributedDataParallel and fully_shard act on a module's forward: this is the module that they wrap, so
    that whatever is computed of the model passes through a forward, within which its weights are whole.
    """

    def __init__(self, model: CoCa):
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[CoCa], Any]) -> Any:
        return work(self.model)


@dataclass
class _Counts:
    """Of the whole batch."""

    num_parts: int  # micro-batches of every process
    rows: list[int]  # of each of them, of all processes
    divisor: float | None  # see `caption_loss`; None: one part of one process, which knows


def compute_gradients(
    call: nn.Module,
    model: CoCa,
    inputs: Inputs,
    config: LossConfig,
    *,
    micro_batch_size: int = 0,
    accumulation: Accumulation = Accumulation.cached,
) -> dict[str, Tensor]:
    """Adds the gradient of the loss to the weights' `grad`; returns loss, caption, contrastive, scale.

    call: a ModelCall of the model, or what wraps it. micro_batch_size: rows that pass the model at a time,
    0 = all. All processes must call; the means over them of what is returned are the batch's losses.
    """
    counts = _count(model, inputs, micro_batch_size)
    parts = inputs.split(counts.num_parts)
    if len(parts) == 1:
        works = [partial(losses_of, parts[0], config, divisor=counts.divisor)]
        return _backward(call, works)
    if not config.contrastive_weight or accumulation is Accumulation.separate:
        total = sum(counts.rows)
        shares = [{"divisor": counts.divisor, "contrastive_share": rows / total} for rows in counts.rows]
        works = [partial(losses_of, part, config, **share) for part, share in zip(parts, shares)]
        return _backward(call, works)
    return _cached(call, model, parts, config, divisor=counts.divisor)


def compute_task_gradients(
    call: nn.Module, model: CoCa, inputs: Inputs, task: Task, *, micro_batch_size: int = 0
) -> dict[str, Tensor]:
    """As `compute_gradients`, of a task's losses, whose rows know nothing of each other."""
    counts = _count(model, inputs, micro_batch_size)
    num_rows = max(sum(counts.rows), 1) / num_processes()
    parts = inputs.split(counts.num_parts)
    return _backward(call, [partial(task_losses_of, part, task, num_rows=num_rows) for part in parts])


def _count(model: CoCa, inputs: Inputs, micro_batch_size: int) -> _Counts:
    """Of all processes, whose rows may differ in number."""
    num_tokens = model.num_caption_targets(inputs.text_mask) if inputs.has_weight else 0
    own = torch.tensor([[len(inputs), num_tokens]], device=inputs.ids.device)
    rows, tokens = gather(own, [1] * num_processes()).T.tolist()
    num_parts = -(-max(rows) // micro_batch_size) if micro_batch_size else 1
    if num_parts <= 1 and num_processes() == 1 and sum(rows):
        return _Counts(1, rows, None)
    sizes = [_part_sizes(num_rows, max(num_parts, 1)) for num_rows in rows]
    divisor = max(sum(tokens), 1) / num_processes()
    return _Counts(max(num_parts, 1), [sum(of_part) for of_part in zip(*sizes)], divisor)


def _part_sizes(num_rows: int, num_parts: int) -> list[int]:
    """Those of `Inputs.split`."""
    each, more = divmod(num_rows, num_parts)
    return [each + (part < more) for part in range(num_parts)]


def _backward(call: nn.Module, works: list[Callable[[CoCa], dict[str, Tensor]]]) -> dict[str, Tensor]:
    """The backward pass of each work's loss; the sums of their scalars, but for the scale."""
    total: dict[str, Tensor] = {}
    for number, work in enumerate(works):
        with _exchanging(call, number == len(works) - 1):
            losses = call(work)
            losses["loss"].backward()
        for name, value in losses.items():
            value = value.detach()
            total[name] = total[name] + value if name in total and name != "scale" else value
    return total


def _exchanging(call: nn.Module, is_last: bool) -> AbstractContextManager:
    """DistributedDataParallel exchanges gradients once, after the last part.

    fully_shard does after each: it could not hold the whole gradient of a model that it shards.
    """
    return call.no_sync() if isinstance(call, DistributedDataParallel) and not is_last else nullcontext()


def _cached(
    call: nn.Module, model: CoCa, parts: list[Inputs], config: LossConfig, *, divisor: float
) -> dict[str, Tensor]:
    """GradCache: the contrastive loss of all embeddings, then its gradient through one part at a time."""
    seed = torch.initial_seed()  # dropout must be the same in both passes
    embeddings = []
    for number, part in enumerate(parts):
        torch.manual_seed(seed_of(seed, number))
        with torch.no_grad():
            embeddings.append(call(partial(_embeddings, part)))
    video, text = (torch.cat(rows).requires_grad_() for rows in zip(*embeddings))
    groups = torch.cat([part.groups[: len(part)] for part in parts]) if config.share_positives else None
    scale = model.heads.log_scale.detach().exp().requires_grad_()
    contrastive = contrastive_loss(video, text, scale, groups=groups, ring=config.ring)
    gradients = torch.autograd.grad(config.contrastive_weight * contrastive, (video, text, scale))
    of_pairs = zip(*(gradient.split([len(part) for part in parts]) for gradient in gradients[:2]))

    def work(number: int, part: Inputs, of_part: tuple[Tensor, Tensor], model: CoCa) -> dict[str, Tensor]:
        torch.manual_seed(seed_of(seed, number))
        outputs = outputs_of(part, config, model)
        pairs = zip((outputs["video"], outputs["text"]), of_part)
        loss = sum((rows * gradient).sum() for rows, gradient in pairs)
        loss = loss + model.heads.log_scale.exp() * gradients[2] / len(parts)
        if not config.caption_weight:
            return {"loss": loss}
        caption = caption_loss_of(outputs, config, model, divisor=divisor)
        return {"caption": caption, "loss": loss + config.caption_weight * caption}

    works = [partial(work, i, part, of_part) for i, (part, of_part) in enumerate(zip(parts, of_pairs))]
    losses = _backward(call, works) | {"contrastive": contrastive.detach(), "scale": scale.detach()}
    return losses | {"loss": weighted_sum(losses, config)}


def _embeddings(part: Inputs, model: CoCa) -> tuple[Tensor, Tensor]:
    _, video = model.pool(encoded(part, model), part.frame_mask)
    text = model.encode_text(part.ids, part.text_mask)
    return video[: len(part)].float(), text[: len(part)].float()


def clip_gradients(parameters: list[nn.Parameter], clip_norm: float) -> Tensor:
    """Scales the whole gradient to clip_norm where it is longer (0 = never); returns its norm before.

    Sharded parameters have a part of their gradient here: the norm is of all parts.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    sharded = [gradient.to_local() for gradient in gradients if isinstance(gradient, DTensor)]
    if not sharded:
        return nn.utils.clip_grad_norm_(parameters, clip_norm or float("inf"))
    whole = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
    squares = sum_over_processes(nn.utils.get_total_norm(sharded).square())
    norm = (squares + (nn.utils.get_total_norm(whole).square() if whole else 0)).sqrt()
    if clip_norm:
        torch._foreach_mul_(sharded + whole, (clip_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm
