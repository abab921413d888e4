"""One training step: the two losses, their gradient, the update."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

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


def compute_losses(model: CoCa, frames: Tensor, batch: Batch, config: LossConfig) -> dict[str, Tensor]:
    """frames: normalised 'b t c h w' of the batch; returns the scalars loss, caption, contrastive, scale.

    A loss of weight 0 is neither computed nor returned; nor, without contrast, is its scale.
    """
    if not config.contrastive_weight:
        memory, _ = model.pool(model.encode_frames(frames, batch.frame_mask), batch.frame_mask)
        caption = _caption(model.caption_logits(memory, batch.ids), batch, config)
        return {"loss": config.caption_weight * caption, "caption": caption}
    if not config.caption_weight:
        video = model.encode_video(frames, batch.frame_mask)
        text, scale = model.encode_text(batch.ids, batch.text_mask), model.heads.log_scale.exp()
        contrastive = _contrastive(video, text, scale, batch, config)
        loss = config.contrastive_weight * contrastive
        return {"loss": loss, "contrastive": contrastive, "scale": scale}
    out = model(frames, batch.ids, batch.text_mask, batch.frame_mask)
    caption = _caption(out.logits, batch, config)
    contrastive = _contrastive(out.video_embedding, out.text_embedding, out.logit_scale, batch, config)
    loss = config.caption_weight * caption + config.contrastive_weight * contrastive
    return {"loss": loss, "caption": caption, "contrastive": contrastive, "scale": out.logit_scale}


def _caption(logits: Tensor, batch: Batch, config: LossConfig) -> Tensor:
    return caption_loss(logits, batch.ids, batch.text_mask, label_smoothing=config.label_smoothing)


def _contrastive(video: Tensor, text: Tensor, scale: Tensor, batch: Batch, config: LossConfig) -> Tensor:
    groups = batch.groups if config.share_positives else None
    return contrastive_loss(video, text, scale, groups=groups)


def update(model: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer, *, clip_norm: float) -> Tensor:
    """One backward pass and optimizer step; returns the gradient's norm before clipping."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm or float("inf"))
    optimizer.step()
    return norm
