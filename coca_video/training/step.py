"""One training step: the two losses, their gradient, the update."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from coca_video.data.samples import Batch
from coca_video.losses import caption_loss, contrastive_loss
from coca_video.models.coca import CoCa


@dataclass
class LossConfig:
    """CoCa's weights (section 4.1): 2 x captioning + 1 x contrastive."""

    caption_weight: float = 2.0
    contrastive_weight: float = 1.0
    label_smoothing: float = 0.0
    share_positives: bool = True  # pairs of equal text are not each other's negatives

    def __post_init__(self) -> None:
        if self.caption_weight < 0 or self.contrastive_weight < 0:
            weights = (self.caption_weight, self.contrastive_weight)
            raise ValueError(f"loss weights must not be negative, got {weights}")
        if self.caption_weight == self.contrastive_weight == 0:
            raise ValueError("one of caption_weight and contrastive_weight must be positive, got 0 for both")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {self.label_smoothing}")


def compute_losses(
    model: CoCa, frames: Tensor | None, batch: Batch, config: LossConfig, *, micro_batch_size: int = 0
) -> dict[str, Tensor]:
    """frames: normalised 'b t c h w' of the batch, None if it brings tokens instead; returns the scalars
    loss, caption, contrastive, scale.

    A loss of weight 0 is neither computed nor returned; nor, without contrast, is its scale.
    micro_batch_size: clips that pass the model at a time, 0 = all. The losses are those of the whole batch,
    and so is their gradient: the backward pass computes each micro-batch once more (GradCache, arXiv
    2101.06983), so that one micro-batch's activations are all that is kept.
    """
    pixels = batch.tokens if frames is None else frames
    inputs = (pixels, batch.frame_mask, batch.ids, batch.text_mask)
    if micro_batch_size:
        micro = zip(*(x.split(micro_batch_size) for x in inputs))
        parts = [checkpoint(_outputs, model, config, *part, use_reentrant=False) for part in micro]
        outputs = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    else:
        outputs = _outputs(model, config, *inputs)
    losses = {}
    if config.caption_weight:
        read = outputs["features"], model.heads.vocabulary.weight, outputs["targets"]
        losses["caption"] = caption_loss(*read, label_smoothing=config.label_smoothing)
    if config.contrastive_weight:
        groups = batch.groups if config.share_positives else None
        losses["scale"] = model.heads.log_scale.exp()
        pairs = outputs["video"], outputs["text"]
        losses["contrastive"] = contrastive_loss(*pairs, losses["scale"], groups=groups)
    weights = {"caption": config.caption_weight, "contrastive": config.contrastive_weight}
    return losses | {"loss": sum(weights[name] * losses[name] for name in weights if name in losses)}


def _outputs(
    model: CoCa, config: LossConfig, pixels: Tensor, frame_mask: Tensor, ids: Tensor, text_mask: Tensor
) -> dict[str, Tensor]:
    """What the losses of some weight read. pixels: 'b t c h w', or tokens 'b t n d' encoded before."""
    tokens = pixels if pixels.ndim == 4 else model.encode_frames(pixels, frame_mask)
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


def update(model: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer, *, clip_norm: float) -> Tensor:
    """One backward pass and optimizer step; returns the gradient's norm before clipping."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm or float("inf"))
    optimizer.step()
    return norm
