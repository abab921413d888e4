"""CoCa's losses of a batch: what passes the model, and what is computed from it."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from coca_video.data.samples import Batch
from coca_video.layers.batch_norm import without_weight
from coca_video.losses import caption_loss, contrastive_loss
from coca_video.models.coca import CoCa
from coca_video.tasks.task import Task, TaskInputs


@dataclass
class LossConfig:
    """CoCa's weights (section 4.1): 2 x captioning + 1 x contrastive."""

    caption_weight: float = 2.0
    contrastive_weight: float = 1.0
    label_smoothing: float = 0.0
    share_positives: bool = True  # pairs of equal text are not each other's negatives
    ring: bool = (
        False  # among processes: embeddings travel instead of being gathered (less memory, more trips)
    )

    def __post_init__(self) -> None:
        if self.caption_weight < 0 or self.contrastive_weight < 0:
            weights = (self.caption_weight, self.contrastive_weight)
            raise ValueError(f"loss weights must not be negative, got {weights}")
        if self.caption_weight == self.contrastive_weight == 0:
            raise ValueError("one of caption_weight and contrastive_weight must be positive, got 0 for both")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {self.label_smoothing}")


@dataclass
class Frames:
    """Frames as they were read, which become the model's when their turn comes.

    Bytes wait in a quarter of the room that normalised ones take, and of those a micro-batch's are enough.
    """

    frames: Tensor  # uint8 'b t c h w'
    rows: Tensor  # int 'b': their places in the batch of all processes
    prepare: Callable[[Tensor, list[int]], Tensor]  # both to normalised 'b t c h w', alike each time

    def __getitem__(self, some: slice) -> "Frames":
        return Frames(self.frames[some], self.rows[some], self.prepare)

    def tensor_split(self, num_parts: int) -> list["Frames"]:
        parts = zip(self.frames.tensor_split(num_parts), self.rows.tensor_split(num_parts))
        return [Frames(*part, self.prepare) for part in parts]

    @torch.no_grad()
    def prepared(self) -> Tensor:
        with torch.autocast(self.frames.device.type, enabled=False):  # colours are not the model's products
            return self.prepare(self.frames, self.rows.tolist())


@dataclass
class Inputs:
    """What of a batch, or of a part of it, passes the model."""

    pixels: Tensor | Frames  # 'b t c h w', normalised or to be so, or tokens 'b t n d' encoded before
    frame_mask: Tensor  # bool 'b t'
    ids: Tensor  # int 'b l'
    text_mask: Tensor  # bool 'b l'
    groups: Tensor  # int64 'b'
    prompt_mask: Tensor | None = None  # bool 'b l'; of a task
    targets: Tensor | None = None  # 'b ...'; of a task
    has_weight: bool = True  # False: a filler, which keeps other processes company and counts for nothing

    @staticmethod
    def of(batch: Batch, frames: Tensor | Frames | None) -> "Inputs":
        """frames: of the batch, None if it brings tokens instead."""
        pixels = batch.tokens if frames is None else frames
        given = (pixels, batch.frame_mask, batch.ids, batch.text_mask, batch.groups)
        return Inputs(*given, batch.prompt_mask, batch.targets, has_weight=not batch.is_filler)

    def __len__(self) -> int:
        """Rows that count."""
        return len(self.ids) if self.has_weight else 0

    def split(self, num_parts: int) -> list["Inputs"]:
        """As evenly as possible; where there are too few rows, the last parts are fillers."""
        if num_parts == 1:
            return [self]
        tensors = {name: x for name, x in vars(self).items() if x is not None and name != "has_weight"}
        num_own = min(num_parts, len(self))
        parts = []
        if num_own:
            split = zip(*(x.tensor_split(num_own) for x in tensors.values()))
            parts = [Inputs(**dict(zip(tensors, part))) for part in split]
        filler = Inputs(**{name: x[:1] for name, x in tensors.items()}, has_weight=False)
        return parts + [filler] * (num_parts - num_own)


def compute_losses(model: CoCa, frames: Tensor | None, batch: Batch, config: LossConfig) -> dict[str, Tensor]:
    """frames: normalised 'b t c h w' of the batch, None if it brings tokens instead; returns the scalars
    loss, caption, contrastive, scale.

    A loss of weight 0 is neither computed nor returned; nor, without contrast, is its scale.
    In a distributed run the means over processes are the losses of the whole batch.
    """
    return losses_of(Inputs.of(batch, frames), config, model)


def losses_of(
    inputs: Inputs,
    config: LossConfig,
    model: CoCa,
    *,
    divisor: float | None = None,
    contrastive_share: float = 1.0,
) -> dict[str, Tensor]:
    """`compute_losses` of a part of a batch.

    divisor: of the sum of the tokens' losses, see `caption_loss`.
    contrastive_share: the factor of this part's contrastive loss in that of the batch.
    """
    outputs = outputs_of(inputs, config, model)
    losses = {}
    if config.caption_weight:
        losses["caption"] = caption_loss_of(outputs, config, model, divisor=divisor)
    if config.contrastive_weight:
        groups = inputs.groups[: len(inputs)] if config.share_positives else None
        losses["scale"] = model.heads.log_scale.exp()
        pairs = outputs["video"], outputs["text"]
        contrastive = contrastive_loss(*pairs, losses["scale"], groups=groups, ring=config.ring)
        losses["contrastive"] = contrastive * contrastive_share
    return losses | {"loss": weighted_sum(losses, config)}


def task_losses_of(inputs: Inputs, task: Task, model: CoCa, *, num_rows: float) -> dict[str, Tensor]:
    """The scalars of a part of a batch, `loss` and those of the task: sums over rows, divided by num_rows."""
    with nullcontext() if inputs.has_weight else without_weight(model):
        tokens = task.tokens(model, inputs.frame_mask, lambda: encoded(inputs, model))
        texts = (inputs.ids, inputs.text_mask, inputs.prompt_mask)
        of_rows = task.losses(model, TaskInputs(tokens, inputs.frame_mask, *texts, inputs.targets))
    for name, rows in of_rows.items():
        if rows.shape != inputs.ids.shape[:1]:
            found = f"{tuple(rows.shape)} for {len(inputs.ids)} rows"
            raise ValueError(f"the task {task.name}: its loss {name} must be one of each row, got {found}")
    losses = {name: rows[: len(inputs)].sum() / num_rows for name, rows in of_rows.items()}
    return losses | {"loss": task.weighted(losses)}


def weighted_sum(losses: dict[str, Tensor], config: LossConfig) -> Tensor:
    weights = {"caption": config.caption_weight, "contrastive": config.contrastive_weight}
    return sum(weights[name] * losses[name] for name in weights if name in losses)


def caption_loss_of(
    outputs: dict[str, Tensor], config: LossConfig, model: CoCa, *, divisor: float | None
) -> Tensor:
    read = outputs["features"], model.heads.vocabulary.weight, outputs["targets"]
    return caption_loss(*read, label_smoothing=config.label_smoothing, divisor=divisor)


def outputs_of(inputs: Inputs, config: LossConfig, model: CoCa) -> dict[str, Tensor]:
    """What the losses of some weight read: features 'n d', targets 'n', unit video and text 'b e'.

    Of a filler they have no rows, yet depend on all weights: its gradient is zero.
    """
    if inputs.has_weight:
        return _outputs(inputs, config, model)
    with without_weight(model):
        return {name: value[:0] for name, value in _outputs(inputs, config, model).items()}


def _outputs(inputs: Inputs, config: LossConfig, model: CoCa) -> dict[str, Tensor]:
    ids, text_mask, frame_mask = inputs.ids, inputs.text_mask, inputs.frame_mask
    tokens = encoded(inputs, model)
    if not config.caption_weight:
        _, video = model.pool(tokens, frame_mask)
        return {"video": video, "text": model.encode_text(ids, text_mask)}
    if not config.contrastive_weight:
        memory, _ = model.pool(tokens, frame_mask)
        features, targets = model.caption_features(memory, ids, text_mask)
        return {"features": features, "targets": targets}
    out = model.read(tokens, ids, text_mask, frame_mask)
    read = {"features": out.caption_features, "targets": out.caption_targets}
    return read | {"video": out.video_embedding, "text": out.text_embedding}


def encoded(inputs: Inputs, model: CoCa) -> Tensor:
    """Tokens 'b t n d'."""
    pixels = inputs.pixels.prepared() if isinstance(inputs.pixels, Frames) else inputs.pixels
    return pixels if pixels.ndim == 4 else model.encode_frames(pixels, inputs.frame_mask)
