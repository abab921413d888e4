"""open_clip's vocabulary projection once started as uninitialised zeros; ours is measured."""

import math

import pytest
import torch
from tiny import VOCAB_SIZE, coca, image_config, noise, texts

from coca_video.layers.patches import Stem
from coca_video.losses import caption_loss
from coca_video.models.coca import CoCa

ZERO_BY_DESIGN = ("bias", "time_positions.table")


@pytest.fixture(params=Stem)
def model(request) -> CoCa:
    return coca(image=image_config(stem=request.param), num_time_positions=4)


def test_the_first_caption_loss_is_that_of_guessing(model):
    ids, mask = texts(*[12] * 32)
    out = model(noise(32, 2, 3, 16, 16), ids, mask)
    assert caption_loss(out.logits, ids, mask).item() == pytest.approx(math.log(VOCAB_SIZE), rel=0.02)
    assert out.logits.std() > 0.02


def test_no_matrix_starts_constant(model):
    for name, parameter in model.named_parameters():
        if name.endswith(ZERO_BY_DESIGN):
            assert (parameter == 0).all() or parameter.ndim == 1, name
        elif parameter.ndim > 1:
            assert 5e-3 < parameter.std() < 1.5, f"{name} {parameter.std()}"
            assert parameter.mean().abs() < 0.5 * parameter.std(), name


def test_the_temperature_starts_at_its_setting(model):
    assert model.log_scale.exp().item() == pytest.approx(1 / 0.07)


def test_embeddings_start_apart(model):
    """Whatever the clip or the text, its embedding must not start as the same direction."""
    model.train()  # an untrained conv stem's running statistics do not fit its activations
    videos = model.encode_video(torch.cat([noise(4, 2, 3, 16, 16), noise(4, 2, 3, 16, 16, seed=1) + 2]))
    sentences = model.encode_text(*texts(3, 5, 7, 9, 11, 12, 4, 6))
    for embeddings in (videos, sentences):
        similarity = embeddings @ embeddings.T
        assert similarity[~torch.eye(8, dtype=torch.bool)].max() < 0.9999
