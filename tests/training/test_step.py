import pytest
import reference
import torch
from steps import batch
from taught import CLASSES, all_tasks, batch_for, inputs_for, like, with_head
from tiny import POOLERS, coca, noise, temporal_config, text_config

from coca_video.models.adaptors import Adaptor
from coca_video.models.text_decoder import TextStyle
from coca_video.tasks.classification import Classification
from coca_video.training.regimes import reached_by_task
from coca_video.training.step import Inputs, LossConfig, compute_losses, task_losses_of


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


@pytest.mark.parametrize("task", all_tasks(), ids=lambda task: task.name)
def test_losses_of_a_task_are_means_over_rows(task):
    model = with_head(coca(), task)
    batch = batch_for(task, 4)
    of_rows = task.losses(model, inputs_for(task, model, batch))
    found = task_losses_of(Inputs.of(batch, batch.frames / 255), task, model, num_rows=4)
    assert found.keys() == {"loss", *of_rows}
    for name, rows in of_rows.items():
        torch.testing.assert_close(found[name], rows.mean())
    torch.testing.assert_close(found["loss"], task.weighted(of_rows).mean())


def test_of_what_does_not_count_a_task_has_no_loss():
    """But a gradient, of zero, for which the other processes wait."""
    task = all_tasks()[1]
    model, batch = with_head(coca(), task), batch_for(task)
    batch.is_filler = True
    found = task_losses_of(Inputs.of(batch, batch.frames / 255), task, model, num_rows=2.5)
    found["loss"].backward()
    assert not any(found.values())
    live = {name for name, p in model.named_parameters() if p.grad is not None}
    assert live == set(reached_by_task(model.config, task, like(task)))


class Total(Classification):
    def losses(self, model, inputs):
        return {"task": super().losses(model, inputs)["task"].mean()}


def test_a_task_must_give_a_loss_of_each_row():
    task = Total(classes=CLASSES)
    model, batch = with_head(coca(), task), batch_for(task)
    with pytest.raises(ValueError, match=r"its loss task must be one of each row, got \(\) for 3 rows"):
        task_losses_of(Inputs.of(batch, batch.frames / 255), task, model, num_rows=3)
