import math

import pytest
import torch
from tiny import VOCAB_SIZE, coca, image_config, noise, shaken, temporal_config, text_config, texts

from coca_video.layers.patches import Stem
from coca_video.models.adaptors import Adaptor
from coca_video.models.image_encoder import ImageStyle
from coca_video.models.text_decoder import Memory, TextStyle

FRAMES = (2, 3, 3, 16, 16)  # 'b t c h w'
FRAME_MASK = torch.tensor([[True, True, False], [True, True, True]])


def spread(values: torch.Tensor) -> torch.Tensor:
    """A scalar of embeddings whose gradient is not zero by symmetry."""
    return (values * torch.arange(values.numel()).reshape(values.shape)).sum()


@pytest.mark.parametrize("image", [{"stem": Stem.patch}, {"stem": Stem.conv}, {"style": ImageStyle.clip}])
@pytest.mark.parametrize("adaptor", Adaptor)
def test_an_image_is_a_video_of_one_frame(adaptor, image):
    model = coca(image=image_config(**image), temporal=temporal_config(adaptor))
    shaken(model.temporal)
    pixels = noise(2, 3, 16, 16)
    assert torch.equal(model.encode_image(pixels), model.encode_video(pixels.unsqueeze(1)))


def test_embeddings_have_unit_length_and_their_own_width():
    model = coca()
    for embedding in (model.encode_video(noise(*FRAMES)), model.encode_text(*texts(5, 3))):
        assert embedding.shape == (2, 20)
        torch.testing.assert_close(embedding.norm(dim=-1), torch.ones(2))


def test_frames_are_encoded_each_on_its_own():
    model, frames = coca(), noise(*FRAMES)
    tokens = model.encode_frames(frames)
    assert tokens.shape == (2, 3, 4, 16)
    for b in range(2):
        for t in range(3):
            torch.testing.assert_close(tokens[b, t], model.image_encoder(frames[b, t].unsqueeze(0))[0])


def test_one_forward_gives_what_the_parts_give():
    model, frames, (ids, mask) = coca(), noise(*FRAMES), texts(5, 3)
    out = model(frames, ids, mask, FRAME_MASK)
    memory, embedding = model.pool(model.encode_frames(frames), FRAME_MASK)
    assert torch.equal(out.video_embedding, embedding)
    assert torch.equal(out.video_embedding, model.encode_video(frames, FRAME_MASK))
    assert torch.equal(out.text_embedding, model.encode_text(ids, mask))
    logits = model.heads.vocabulary(out.caption_features)
    torch.testing.assert_close(logits, model.caption_logits(memory, ids)[:, :-1][mask[:, 1:]])
    features, targets = model.caption_features(memory, ids, mask)
    torch.testing.assert_close(features, out.caption_features)
    assert targets.tolist() == out.caption_targets.tolist() == [*ids[0, 1:].tolist(), *ids[1, 1:3].tolist()]
    assert memory.tokens.shape == (2, 5, 24) and logits.shape == (6, VOCAB_SIZE)
    assert out.logit_scale.item() == pytest.approx(1 / 0.07)


def test_the_contrastive_pooler_stands_on_the_generative_one():
    model, frames = coca(), noise(*FRAMES)
    gradient = torch.autograd.grad(spread(model.encode_video(frames)), model.poolers.caption.queries)[0]
    assert (gradient != 0).any(dim=-1).all()


def test_no_gradient_reaches_padding_frames():
    model, frames, (ids, mask) = coca(), noise(*FRAMES), texts(5, 3)
    out = model(frames, ids, mask, FRAME_MASK)
    for value in (out.video_embedding, out.caption_features):
        (gradient,) = torch.autograd.grad(spread(value), frames, retain_graph=True)
        assert (gradient[~FRAME_MASK] == 0).all()
        assert (gradient[FRAME_MASK].abs().amax(dim=(1, 2, 3)) > 0).all()


def test_padding_beyond_the_time_positions_changes_nothing():
    model = coca(temporal=temporal_config(Adaptor.attentional, num_positions=2))
    shaken(model.temporal)
    frames = noise(*FRAMES)
    torch.testing.assert_close(model.encode_video(frames, FRAME_MASK)[:1], model.encode_video(frames[:1, :2]))


@pytest.mark.parametrize("style", TextStyle)
def test_what_the_text_hides_reaches_neither_embedding_nor_logits(style):
    model, memory = coca(text=text_config(style=style)), Memory(noise(2, 5, 24))
    ids, mask = texts(5, 3, pad_to=8)
    other = torch.where(mask, ids, 9)
    assert torch.equal(model.encode_text(ids, mask), model.encode_text(other, mask))
    difference = model.caption_logits(memory, ids) - model.caption_logits(memory, other)
    assert (difference[mask] == 0).all()
    torch.testing.assert_close(model.encode_text(ids, mask), model.encode_text(*texts(5, 3)))


def test_other_picture_sizes_resize_the_positions():
    model = coca()
    assert model.encode_frames(noise(1, 2, 3, 32, 32)).shape == (1, 2, 16, 16)


def test_temperature_is_a_setting():
    assert coca(init_temperature=0.5).heads.log_scale.item() == pytest.approx(math.log(2))
