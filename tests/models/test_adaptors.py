import pytest
import reference
import torch
import torch.nn.functional as F
from tiny import POOLERS, coca, name, noise, shaken, temporal_config, texts
from torch import Tensor

from coca_video.models.adaptors import Adaptor, TemporalConfig
from coca_video.models.coca import CoCa
from coca_video.models.poolers import PoolerStyle

FRAMES = (2, 3, 3, 16, 16)  # 'b t c h w'
FRAME_MASK = torch.tensor([[True, True, False], [True, True, True]])
ORDERED = [Adaptor.attentional, Adaptor.factorised, Adaptor.joint]  # those that can know of time

every_adaptor = pytest.mark.parametrize("adaptor", Adaptor)
every_pooler = pytest.mark.parametrize("poolers", POOLERS, ids=name)


def build(adaptor: Adaptor, *, is_trained: bool = True, poolers: dict = POOLERS[0], **changes) -> CoCa:
    """is_trained: the weights that only clips teach are away from their start."""
    model = coca(temporal=temporal_config(adaptor, **changes), **poolers)
    if is_trained:
        shaken(model.temporal)
    return model


def of_pictures(model: CoCa) -> CoCa:
    """A model that knows no time, with the same weights for pictures."""
    pictures = coca(poolers=model.config.poolers, num_caption_queries=model.config.num_caption_queries)
    for part in ("image_encoder", "poolers", "heads"):
        getattr(pictures, part).load_state_dict(getattr(model, part).state_dict())
    return pictures


def outputs(model: CoCa, frames: Tensor, mask: Tensor | None = None) -> Tensor:
    """A row a clip: its embedding, and the logits of one text."""
    memory, embedding = model.pool(model.encode_frames(frames, mask), mask)
    ids = texts(4)[0].expand(len(frames), -1)
    return torch.cat([embedding, model.caption_logits(memory, ids).flatten(1)], dim=1)


def by_clip(model: CoCa, frames: Tensor) -> Tensor:
    """`outputs` of each clip alone, without its padding."""
    return torch.cat([outputs(model, clip[mask].unsqueeze(0)) for clip, mask in zip(frames, FRAME_MASK)])


@every_pooler
@every_adaptor
def test_padded_clips_in_a_batch_are_what_they_are_alone(adaptor, poolers):
    """Values and gradients: padding is never read, and no clip sees another."""
    model = build(adaptor, poolers=poolers).double()  # the bound is finer than what float32 rounds here
    with torch.no_grad():
        model.heads.vocabulary.weight *= 10
    reference.assert_equal_with_gradients(
        lambda frames, *_: outputs(model, frames, FRAME_MASK),
        lambda frames, *_: by_clip(model, frames),
        noise(*FRAMES).detach().double().requires_grad_(),
        *model.temporal.parameters(),
    )


@every_pooler
@every_adaptor
def test_garbage_in_padding_frames_changes_nothing(adaptor, poolers):
    model, frames = build(adaptor, poolers=poolers), noise(*FRAMES).detach()
    garbage = frames.masked_fill(~FRAME_MASK.view(2, 3, 1, 1, 1), torch.nan)
    assert torch.equal(outputs(model, frames, FRAME_MASK), outputs(model, garbage, FRAME_MASK))


@every_pooler
@every_adaptor
def test_a_clip_of_one_frame_is_a_picture(adaptor, poolers):
    """Whatever the time positions: a picture has no time. The factorised layers start as nothing."""
    model = build(adaptor, poolers=poolers, is_trained=adaptor is not Adaptor.factorised)
    pixels = noise(2, 3, 16, 16)
    expected = of_pictures(model).encode_image(pixels)
    torch.testing.assert_close(model.encode_image(pixels), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(model.encode_video(pixels.unsqueeze(1)), expected, atol=1e-6, rtol=0)


@every_adaptor
def test_a_padded_picture_beside_a_clip_is_still_a_picture(adaptor):
    model, frames = build(adaptor), noise(*FRAMES)
    mask = torch.tensor([[True, False, False], [True, True, True]])
    torch.testing.assert_close(model.encode_video(frames, mask)[:1], model.encode_image(frames[:1, 0]))


@every_pooler
def test_the_mean_is_that_of_the_frames_as_pictures(poolers):
    model, frames = build(Adaptor.mean, poolers=poolers), noise(*FRAMES)
    memory, embedding = model.pool(model.encode_frames(frames, FRAME_MASK), FRAME_MASK)
    for b, num_frames in enumerate([2, 3]):
        alone = [model.pool(model.encode_frames(frames[b : b + 1, t : t + 1])) for t in range(num_frames)]
        mean = sum(each for _, each in alone) / num_frames
        torch.testing.assert_close(embedding[b], F.normalize(mean, dim=-1)[0])
        memories = sum(each.tokens for each, _ in alone) / num_frames
        torch.testing.assert_close(memory.tokens[b], memories[0])


@every_pooler
def test_factorised_starts_as_the_mean(poolers):
    model, frames = build(Adaptor.factorised, poolers=poolers, is_trained=False), noise(*FRAMES)
    each = of_pictures(model).encode_image(frames.flatten(0, 1)).unflatten(0, FRAMES[:2])
    expected = F.normalize((each * FRAME_MASK.unsqueeze(-1)).sum(dim=1), dim=-1)
    torch.testing.assert_close(model.encode_video(frames, FRAME_MASK), expected)


@every_pooler
def test_factorised_remembers_a_token_a_frame(poolers):
    model = build(Adaptor.factorised, poolers=poolers)
    memory, _ = model.pool(model.encode_frames(noise(*FRAMES), FRAME_MASK), FRAME_MASK)
    assert memory.tokens.shape == (2, 3, 24) and memory.mask is FRAME_MASK


@pytest.mark.parametrize("adaptor", ORDERED)
def test_time_positions_know_the_order_of_frames(adaptor):
    model, frames = build(adaptor), noise(*FRAMES)
    difference = outputs(model, frames) - outputs(model, frames.flip(1))
    assert difference[:, :20].abs().max() > 1e-2 and difference[:, 20:].abs().max() > 1e-2


@every_adaptor
def test_without_time_positions_frames_are_a_set(adaptor):
    model, frames = build(adaptor, num_positions=0), noise(*FRAMES)
    torch.testing.assert_close(model.encode_video(frames), model.encode_video(frames.flip(1)))


@pytest.mark.parametrize("adaptor", ORDERED)
def test_time_positions_start_without_effect(adaptor):
    with_time, without = (build(adaptor, num_positions=n, is_trained=False) for n in (3, 0))
    missing = with_time.load_state_dict(without.state_dict(), strict=False).missing_keys
    assert missing == ["temporal.positions.table"]
    frames = noise(*FRAMES)
    assert torch.equal(outputs(with_time, frames), outputs(without, frames))


@every_adaptor
def test_only_joint_encodes_frames_together(adaptor):
    model, frames = build(adaptor), noise(*FRAMES)
    tokens = model.encode_frames(frames)
    (gradient,) = torch.autograd.grad((tokens[:, 0] ** 3).sum(), frames)
    reached = [bool((gradient[:, t] != 0).any()) for t in range(3)]
    is_joint = adaptor is Adaptor.joint
    assert reached == [True, is_joint, is_joint]
    assert model.temporal.encodes_frames_alone is not is_joint


@every_pooler
@every_adaptor
def test_the_losses_reach_every_weight(adaptor, poolers):
    model = build(adaptor, poolers=poolers)
    out = model(noise(*FRAMES), *texts(5, 3))
    logits = model.heads.vocabulary(out.caption_features)
    loss = sum((value**3).sum() for value in (out.video_embedding, out.text_embedding, logits))
    weights = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss + out.logit_scale, weights.values(), allow_unused=True)
    missed = {name for name, gradient in zip(weights, gradients) if gradient is None}
    if adaptor is Adaptor.factorised and poolers["poolers"] is PoolerStyle.parallel:
        missed = {name for name in missed if not name.startswith("poolers.caption.")}  # nothing reads it
    assert missed == set()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"num_positions": -1}, "num_positions must not be negative .* got -1 and 4"),
        ({"num_layers": 0}, "num_layers at least 1, got 0 and 0"),
        ({"adaptor": Adaptor.mean, "num_positions": 2}, "mean adaptor .* got num_positions 2"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        TemporalConfig(**settings)
