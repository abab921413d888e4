import math

import pytest
import torch
from tiny import VOCAB_SIZE, coca, image_config, noise, texts

from coca_video.layers.patches import Stem
from coca_video.models.image_encoder import ImageEncoder

FRAMES = (2, 3, 3, 16, 16)  # 'b t c h w'
FRAME_MASK = torch.tensor([[True, True, False], [True, True, True]])


def spread(values: torch.Tensor) -> torch.Tensor:
    """A scalar of embeddings whose gradient is not zero by symmetry."""
    return (values * torch.arange(values.numel()).reshape(values.shape)).sum()


@pytest.mark.parametrize("stem", Stem)
@pytest.mark.parametrize("num_time_positions", [0, 4])
def test_an_image_is_a_video_of_one_frame(stem, num_time_positions):
    model = coca(image=image_config(stem=stem), num_time_positions=num_time_positions)
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
    assert torch.equal(out.logits, model.caption_logits(memory, ids, mask))
    assert memory.shape == (2, 5, 24) and out.logits.shape == (2, 5, VOCAB_SIZE)
    assert out.logit_scale.item() == pytest.approx(1 / 0.07)


def test_the_contrastive_pooler_stands_on_the_generative_one():
    model, frames = coca(), noise(*FRAMES)
    gradient = torch.autograd.grad(spread(model.encode_video(frames)), model.caption_pooler.queries)[0]
    assert (gradient != 0).any(dim=-1).all()


@pytest.mark.parametrize("num_time_positions", [0, 3])
def test_padding_frames_change_nothing(num_time_positions):
    model = coca(num_time_positions=num_time_positions)
    if num_time_positions:
        torch.nn.init.normal_(model.time_positions.table)
    frames = noise(*FRAMES)
    other = torch.where(FRAME_MASK.view(2, 3, 1, 1, 1), frames, 100 * noise(*FRAMES, seed=1))
    ours, theirs = (model.pool(model.encode_frames(x), FRAME_MASK) for x in (frames, other))
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
    torch.testing.assert_close(model.encode_video(frames, FRAME_MASK)[:1], model.encode_video(frames[:1, :2]))


def test_no_gradient_reaches_padding_frames():
    model, frames, (ids, mask) = coca(), noise(*FRAMES), texts(5, 3)
    out = model(frames, ids, mask, FRAME_MASK)
    for value in (out.video_embedding, out.logits):
        (gradient,) = torch.autograd.grad(spread(value), frames, retain_graph=True)
        assert (gradient[~FRAME_MASK] == 0).all()
        assert (gradient[FRAME_MASK].abs().amax(dim=(1, 2, 3)) > 0).all()


def test_a_padded_picture_beside_a_clip_is_still_a_picture():
    model = coca(num_time_positions=3)
    torch.nn.init.normal_(model.time_positions.table)
    frames = noise(*FRAMES)
    mask = torch.tensor([[True, False, False], [True, True, True]])
    torch.testing.assert_close(model.encode_video(frames, mask)[:1], model.encode_image(frames[:1, 0]))


def test_padding_beyond_the_time_positions_changes_nothing():
    model = coca(num_time_positions=2)
    torch.nn.init.normal_(model.time_positions.table)
    frames = noise(*FRAMES)
    torch.testing.assert_close(model.encode_video(frames, FRAME_MASK)[:1], model.encode_video(frames[:1, :2]))


def test_time_positions_start_without_effect():
    with_time, without, frames = coca(num_time_positions=3), coca(), noise(*FRAMES)
    missing = with_time.load_state_dict(without.state_dict(), strict=False).missing_keys
    assert missing == ["time_positions.table"]
    assert torch.equal(with_time.encode_video(frames), without.encode_video(frames))


def test_only_time_positions_know_the_order_of_frames():
    model, frames = coca(num_time_positions=3), noise(*FRAMES)
    picture = model.encode_image(frames[:, 0])
    torch.testing.assert_close(model.encode_video(frames), model.encode_video(frames.flip(1)))
    torch.nn.init.normal_(model.time_positions.table)
    assert (model.encode_video(frames) - model.encode_video(frames.flip(1))).abs().max() > 1e-2
    assert torch.equal(model.encode_image(frames[:, 0]), picture)


def test_what_the_text_hides_reaches_neither_embedding_nor_logits():
    model, memory, (ids, mask) = coca(), noise(2, 5, 24), texts(5, 3, pad_to=8)
    other = torch.where(mask, ids, 9)
    assert torch.equal(model.encode_text(ids, mask), model.encode_text(other, mask))
    difference = model.caption_logits(memory, ids, mask) - model.caption_logits(memory, other, mask)
    assert (difference[mask] == 0).all()
    torch.testing.assert_close(model.encode_text(ids, mask), model.encode_text(*texts(5, 3)))


def test_the_losses_reach_every_parameter():
    model, (ids, mask) = coca(num_time_positions=3), texts(5, 3)
    out = model(noise(*FRAMES), ids, mask)
    loss = spread(out.video_embedding) + spread(out.text_embedding) + spread(out.logits) + out.logit_scale
    names, parameters = zip(*model.named_parameters())
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    assert [name for name, gradient in zip(names, gradients) if gradient is None] == []


def test_other_picture_sizes_resize_the_positions():
    model = coca()
    assert model.encode_frames(noise(1, 2, 3, 32, 32)).shape == (1, 2, 16, 16)


def test_a_picture_that_is_not_square_is_refused():
    """2 x 8 patches are as many as 4 x 4, but their places are others."""
    encoder = ImageEncoder(image_config(image_size=32))
    with pytest.raises(ValueError, match="square"):
        encoder(torch.zeros(1, 3, 16, 64))


def test_image_size_must_be_a_multiple_of_the_patch():
    with pytest.raises(ValueError, match="multiple of patch_size 8, got 20"):
        image_config(image_size=20)


def test_temperature_is_a_setting():
    assert coca(init_temperature=0.5).log_scale.item() == pytest.approx(math.log(2))
