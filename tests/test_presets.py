"""The models of configs/model, by the paper's table and by open_clip's published sizes."""

import pytest
import torch

from coca_video.cli import load_option
from coca_video.errors import InputError
from coca_video.models.coca import CoCa, CoCaConfig


def preset(name: str) -> CoCaConfig:
    return load_option(CoCaConfig, "model", name)


def counted(config: CoCaConfig) -> dict[str, float]:
    """Millions of parameters by part; the decoder's as the paper counts them, the vocabulary within."""
    with torch.device("meta"):
        model = CoCa(config)
    parts = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in model.named_children()}
    vocabulary = model.heads.vocabulary.weight.numel() / 1e6
    parts["vocabulary"] = vocabulary
    parts["decoder"] = parts["unimodal"] + parts["multimodal"] + vocabulary
    parts["all"] = sum(p.numel() for p in model.parameters()) / 1e6
    return parts


def test_the_defaults_are_the_paper_s_base_model():
    assert preset("coca_base") == CoCaConfig()


@pytest.mark.parametrize(
    ("name", "encoder", "decoder", "both"), [("coca_base", 86, 297, 383), ("coca_large", 303, 484, 787)]
)
def test_parameters_are_those_of_the_paper_s_table(name, encoder, decoder, both):
    parts = counted(preset(name))
    assert parts["image_encoder"] == pytest.approx(encoder, rel=0.02)
    assert parts["decoder"] == pytest.approx(decoder, rel=0.02)
    assert parts["image_encoder"] + parts["decoder"] == pytest.approx(both, rel=0.02)
    assert parts["all"] == pytest.approx(both, rel=0.02)  # the poolers, which the table leaves out, included


def test_the_largest_model_s_decoder_is_what_the_table_rounds_down():
    """1.18 billion by the sizes the paper gives; its 1.1, and its total of 2.1, hold the vocabulary once."""
    parts = counted(preset("coca_2b"))
    assert parts["image_encoder"] == pytest.approx(1000, rel=0.02)
    assert parts["decoder"] == pytest.approx(1180, rel=0.001)
    assert parts["decoder"] - parts["vocabulary"] == pytest.approx(1100, rel=0.02)
    assert parts["image_encoder"] + parts["decoder"] - parts["vocabulary"] == pytest.approx(2100, rel=0.02)


@pytest.mark.parametrize(("name", "number"), [("open_clip_b32", 253_560_065), ("open_clip_l14", 638_450_177)])
def test_open_clip_s_models_have_its_number_of_parameters(name, number):
    with torch.device("meta"):
        assert sum(p.numel() for p in CoCa(preset(name)).parameters()) == number


@pytest.mark.parametrize("name", ["coca_base", "coca_large", "coca_2b"])
def test_the_paper_s_pictures_are_256_tokens(name):
    config = preset(name)
    assert (config.image.image_size, config.image.num_patches, config.num_caption_queries) == (288, 256, 256)


def test_an_unknown_preset_is_told_the_choices():
    with pytest.raises(
        InputError, match="coca_small: there is no such model; the choices are coca_2b, coca_base"
    ):
        preset("coca_small")
