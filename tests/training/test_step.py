import math

import pytest
import reference
import torch
from tiny import coca, noise, texts
from torch import nn

from coca_video.data.samples import Batch
from coca_video.training.step import LossConfig, compute_losses, update


def batch() -> Batch:
    """Three clips of two frames at most; the first and the last have the same text."""
    ids, text_mask = texts(6, 4, 6)
    ids[2] = ids[0]
    frames = torch.randint(0, 256, (3, 2, 3, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
    frame_mask = torch.tensor([[True, True], [True, False], [True, True]])
    return Batch(frames, frame_mask, ids, text_mask, torch.tensor([0, 1, 0]), keys=["a", "b", "c"])


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
    caption = reference.caption_loss(out.logits, given.ids, given.text_mask, label_smoothing)
    torch.testing.assert_close(found["contrastive"], contrastive)
    torch.testing.assert_close(found["caption"], caption)
    torch.testing.assert_close(found["loss"], 2.0 * caption + 0.5 * contrastive)
    assert found["scale"].item() == pytest.approx(1 / 0.07)


def test_padding_frames_change_nothing():
    model, given = coca(), batch()
    frames = given.frames / 255
    changed = frames.clone()
    changed[1, 1] = noise(3, 16, 16).detach()
    losses = [compute_losses(model, x, given, LossConfig())["loss"] for x in (frames, changed)]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("weights", [(-1.0, 1.0), (1.0, -0.5)])
def test_weights_are_not_negative(weights):
    with pytest.raises(ValueError, match="loss weights must not be negative"):
        LossConfig(*weights)


@pytest.mark.parametrize(("clip_norm", "length"), [(1.0, 1.0), (10.0, 5.0), (0.0, 5.0)])
def test_update_clips_the_whole_gradient(clip_norm, length):
    """The gradient is (3, 4), five long; what an older step left behind does not count."""
    model = nn.Linear(2, 1, bias=False)
    before = model.weight.detach().clone()
    model.weight.grad = torch.full_like(model.weight, 1e6)
    loss = model(torch.tensor([3.0, 4.0])).sum()
    norm = update(model, loss, torch.optim.SGD(model.parameters(), lr=1.0), clip_norm=clip_norm)
    assert norm.item() == pytest.approx(5.0)
    expected = before - torch.tensor([[3.0, 4.0]]) / 5 * length
    torch.testing.assert_close(model.weight.detach(), expected, atol=1e-5, rtol=0)
    assert math.isclose((model.weight - before).norm().item(), length, rel_tol=1e-4)
