"""open_clip's vocabulary projection once started as uninitialised zeros; ours is measured."""

import math
import re

import pytest
import torch
from tiny import POOLERS, VOCAB_SIZE, coca, image_config, noise, temporal_config, text_config, texts

from coca_video.layers.patches import Stem
from coca_video.losses import caption_loss
from coca_video.models.adaptors import Adaptor
from coca_video.models.coca import CoCa
from coca_video.models.image_encoder import ImageStyle
from coca_video.models.text_decoder import TextStyle

ZERO_BY_DESIGN = re.compile(
    r".*bias|temporal\.positions\.table|temporal\.blocks\.\d\.(self_attention|mlp)\.out\.weight"
)
MODELS = {
    "patch": {"temporal": temporal_config(Adaptor.attentional)},
    "conv": {"image": image_config(stem=Stem.conv), "temporal": temporal_config(Adaptor.joint)},
    "factorised": {"temporal": temporal_config(Adaptor.factorised)},
    "open_clip": {
        "image": image_config(style=ImageStyle.clip),
        "text": text_config(style=TextStyle.open_clip),
        "temporal": temporal_config(Adaptor.mean),
        **POOLERS[-1],
    },
}


@pytest.fixture(params=MODELS)
def model(request) -> CoCa:
    return coca(**MODELS[request.param])


def test_the_first_caption_loss_is_that_of_guessing(model):
    ids, mask = texts(*[12] * 32)
    out = model(noise(32, 2, 3, 16, 16), ids, mask)
    vocabulary = model.heads.vocabulary
    loss = caption_loss(out.caption_features, vocabulary.weight, out.caption_targets)
    assert loss.item() == pytest.approx(math.log(VOCAB_SIZE), rel=0.02)
    assert vocabulary(out.caption_features).std() > 0.02


def test_no_matrix_starts_constant(model):
    for name, parameter in model.named_parameters():
        if ZERO_BY_DESIGN.fullmatch(name):
            assert (parameter == 0).all() or parameter.ndim == 1, name
        elif parameter.ndim > 1:
            assert 5e-3 < parameter.std() < 1.5, f"{name} {parameter.std()}"
            assert parameter.mean().abs() < 0.5 * parameter.std(), name


def test_the_temperature_starts_at_its_setting(model):
    assert model.heads.log_scale.exp().item() == pytest.approx(1 / 0.07)


def test_embeddings_start_apart(model):
    """Whatever the clip or the text, its embedding must not start as the same direction."""
    model.train()  # an untrained conv stem's running statistics do not fit its activations
    videos = model.encode_video(torch.cat([noise(4, 2, 3, 16, 16), noise(4, 2, 3, 16, 16, seed=1) + 2]))
    sentences = model.encode_text(*texts(3, 5, 7, 9, 11, 12, 4, 6))
    for embeddings in (videos, sentences):
        similarity = embeddings @ embeddings.T
        assert similarity[~torch.eye(8, dtype=torch.bool)].max() < 0.9999
