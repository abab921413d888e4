import pytest
import reference
import torch
from steps import batch
from tiny import POOLERS, coca, noise, temporal_config, text_config

from coca_video.models.adaptors import Adaptor
from coca_video.models.text_decoder import TextStyle
from coca_video.training.step import LossConfig, compute_losses


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_losses_equal_the_reference(share, label_smoothing):
    model, given = coca(), batch()
    frames = given.frames / 255
    config = LossConfig(2.0, 0.5, label_smoothing=label_smoothing, share_positives=share)
    found = compute_losses(model, frames, given, config)
    out = model(frames, given.ids, given.text_mask, given.frame_mask)
    groups = [0, 1, 0] if share else [0, 1, 2]
    contrastive = reference.contrastive_loss(out.video_embedding, out.text_embedding, out.logit_scale, groups)
    memory, _ = model.pool(model.encode_frames(frames, given.frame_mask), given.frame_mask)
    logits = model.caption_logits(memory, given.ids)
    caption = reference.caption_loss(logits, given.ids, given.text_mask, label_smoothing)
    torch.testing.assert_close(found["contrastive"], contrastive)
    torch.testing.assert_close(found["caption"], caption)
    torch.testing.assert_close(found["loss"], 2.0 * caption + 0.5 * contrastive)
    assert found["scale"].item() == pytest.approx(1 / 0.07)


def test_padding_frames_change_nothing():
    model, given = coca(), batch()
    frames = given.frames / 255
    changed = frames.clone()
    changed[1, 2] = noise(3, 16, 16).detach()
    losses = [compute_losses(model, x, given, LossConfig())["loss"] for x in (frames, changed)]
    torch.testing.assert_close(*losses)


MODELS = [
    *POOLERS,
    *({"temporal": temporal_config(adaptor)} for adaptor in Adaptor),
    {"text": text_config(style=TextStyle.open_clip)},
]


@pytest.mark.parametrize("changes", MODELS, ids=range(len(MODELS)))
def test_a_loss_of_weight_zero_is_left_out(changes):
    """The other one is the same as in company."""
    model, given = coca(**changes), batch()
    frames = given.frames / 255
    both = compute_losses(model, frames, given, LossConfig(2.0, 0.5))
    caption = compute_losses(model, frames, given, LossConfig(2.0, 0.0))
    assert caption.keys() == {"loss", "caption"}
    torch.testing.assert_close(caption["caption"], both["caption"])
    torch.testing.assert_close(caption["loss"], 2.0 * both["caption"])
    contrast = compute_losses(model, frames, given, LossConfig(0.0, 0.5))
    assert contrast.keys() == {"loss", "contrastive", "scale"}
    torch.testing.assert_close(contrast["contrastive"], both["contrastive"])
    torch.testing.assert_close(contrast["loss"], 0.5 * both["contrastive"])
    assert contrast["scale"] == both["scale"]


def test_one_loss_has_a_weight():
    with pytest.raises(ValueError, match="one of caption_weight and contrastive_weight must be positive"):
        LossConfig(0.0, 0.0)


@pytest.mark.parametrize("weights", [(-1.0, 1.0), (1.0, -0.5)])
def test_weights_are_not_negative(weights):
    with pytest.raises(ValueError, match="loss weights must not be negative"):
        LossConfig(*weights)
