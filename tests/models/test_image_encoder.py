import pytest
import reference
import torch
from einops import rearrange
from tiny import coca, image_config, noise, shaken, temporal_config

from coca_video.layers.patches import Stem
from coca_video.layers.positions import resize_grid
from coca_video.models.adaptors import Adaptor
from coca_video.models.image_encoder import ImageEncoder, ImageStyle, drop_patches

every_style = pytest.mark.parametrize("style", ImageStyle)


def encoder(style: ImageStyle, **changes) -> ImageEncoder:
    torch.manual_seed(0)
    return shaken(ImageEncoder(image_config(style=style, **changes))).eval()


def plain(encoder: ImageEncoder, pixels: torch.Tensor) -> torch.Tensor:
    """Patch by patch; in the style of CLIP a class token first and the norm before the blocks."""
    size = encoder.patches.patch_size
    corners = [(y, x) for y in range(0, pixels.shape[2], size) for x in range(0, pixels.shape[3], size)]
    squares = torch.stack([pixels[:, :, y : y + size, x : x + size] for y, x in corners], dim=1)
    x = squares.flatten(2) @ encoder.patches.project.weight.flatten(1).T
    if encoder.patches.project.bias is not None:
        x = x + encoder.patches.project.bias
    x = x + resize_grid(encoder.positions.table, num_patches=len(corners))
    if encoder.num_class_tokens:
        first = torch.stack([encoder.class_token + encoder.class_position] * len(x)).unsqueeze(1)
        x = reference.layer_norm(torch.cat([first, x], dim=1), encoder.norm_first)
    for block in encoder.blocks:
        x = block(x)
    return x if encoder.num_class_tokens else reference.layer_norm(x, encoder.norm)


@pytest.mark.parametrize("size", [16, 32])
@every_style
def test_equals_the_reference(style, size):
    ours = encoder(style)
    inputs = [noise(2, 3, size, size), *ours.parameters()]
    reference.assert_equal_with_gradients(
        # Gradients of what every token adds up in are small differences of large numbers.
        lambda pixels, *_: ours(pixels),
        lambda pixels, *_: plain(ours, pixels),
        *inputs,
        atol=5e-5,
    )


def test_the_style_of_clip_has_other_weights():
    ours, theirs = (dict(encoder(style).named_parameters()) for style in ImageStyle)
    assert ours.keys() - theirs.keys() == {"patches.project.bias", "norm.weight", "norm.bias"}
    assert theirs.keys() - ours.keys() == {
        "class_token",
        "class_position",
        "norm_first.weight",
        "norm_first.bias",
    }


def test_other_sizes_leave_the_class_token_alone():
    clip = encoder(ImageStyle.clip)
    small, large = (clip.embed(noise(2, 3, size, size)) for size in (16, 32))
    assert small.shape == (2, 1 + 4, 16) and large.shape == (2, 1 + 16, 16)
    assert torch.equal(small[:, 0], large[:, 0]) and torch.equal(small[0, 0], small[1, 0])


def test_the_class_token_reads_the_patches():
    clip, pixels = encoder(ImageStyle.clip), noise(1, 3, 16, 16)
    (gradient,) = torch.autograd.grad((clip(pixels)[:, 0] ** 3).sum(), pixels)
    assert (gradient != 0).all()


@every_style
def test_hidden_tokens_change_nothing(style):
    ours, tokens = encoder(style), noise(2, 5, 16)
    mask = torch.tensor([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    other = torch.where(mask.unsqueeze(-1), tokens, 100 * noise(2, 5, 16, seed=1))
    encoded = ours.encode(tokens, mask)
    assert torch.equal(encoded[mask], ours.encode(other, mask)[mask])
    torch.testing.assert_close(encoded[0, mask[0]], ours.encode(tokens[:1, mask[0]])[0])


@every_style
def test_a_picture_that_is_not_square_is_refused(style):
    """2 x 8 patches are as many as 4 x 4, but their places are others."""
    with pytest.raises(ValueError, match="square, got 16 x 64"):
        encoder(style, image_size=32)(torch.zeros(1, 3, 16, 64))


def test_image_size_must_be_a_multiple_of_the_patch():
    with pytest.raises(ValueError, match="multiple of patch_size 8, got 20"):
        image_config(image_size=20)


def dropping(style: ImageStyle, share: float, **changes) -> ImageEncoder:
    """In training, for pictures of 16 patches."""
    ours = encoder(style, image_size=32, **changes).train()
    ours.patch_dropout = share
    return ours


@pytest.mark.parametrize(("share", "num_kept"), [(0.0, 16), (0.5, 8), (0.7, 5), (0.99, 1)])
@pytest.mark.parametrize("stem", Stem)
@every_style
def test_patch_dropout_keeps_a_share_of_the_patches(style, stem, share, num_kept):
    ours = dropping(style, share, stem=stem)
    assert ours(noise(2, 3, 32, 32)).shape == (2, ours.num_class_tokens + num_kept, 16)


@every_style
def test_patch_dropout_changes_no_token_that_it_keeps(style):
    ours, pixels = dropping(style, 0.7), noise(3, 3, 32, 32)
    kept = ours.embed(pixels)
    whole = ours.eval().embed(pixels)
    assert whole.shape[1] == ours.num_class_tokens + 16
    assert torch.equal(kept[:, : ours.num_class_tokens], whole[:, : ours.num_class_tokens])
    is_kept = (kept.unsqueeze(1) == whole.unsqueeze(2)).all(dim=-1)  # 'b n kept'
    assert (is_kept.sum(dim=1) == 1).all() and (is_kept.sum(dim=2) <= 1).all()


@every_style
def test_patch_dropout_is_for_training_alone(style):
    dropped, plain, pixels = dropping(style, 0.7), encoder(style, image_size=32), noise(2, 3, 32, 32)
    assert torch.equal(dropped.eval()(pixels), plain(pixels))


@every_style
def test_dropped_patches_have_no_gradient(style):
    ours, pixels = dropping(style, 0.7), noise(3, 3, 32, 32)
    (gradient,) = torch.autograd.grad((ours(pixels) ** 3).sum(), pixels)
    reached = (rearrange(gradient, "b c (y h) (x w) -> b (y x) (c h w)", h=8, w=8) != 0).sum(dim=-1)
    assert reached.unique().tolist() == [0, 3 * 8 * 8] and ((reached > 0).sum(dim=1) == 5).all()


def test_every_patch_is_kept_as_often_as_any_other():
    torch.manual_seed(0)
    patches = torch.arange(8.0).view(1, 8, 1).expand(4000, 8, 1)
    kept = drop_patches(patches, 0.6)
    assert kept.shape == (4000, 3, 1)
    share = kept.flatten().long().bincount(minlength=8) / 4000
    torch.testing.assert_close(share, torch.full((8,), 3 / 8), atol=0.03, rtol=0)
    torch.manual_seed(0)
    assert torch.equal(drop_patches(patches, 0.6), kept) and not torch.equal(drop_patches(patches, 0.6), kept)


@pytest.mark.parametrize("adaptor", Adaptor)
def test_patch_dropout_with_every_adaptor(adaptor):
    model = coca(temporal=temporal_config(adaptor)).train()
    model.image_encoder.patch_dropout = 0.5
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert model.encode_frames(noise(2, 3, 3, 16, 16), mask).shape == (2, 3, 2, 16)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_of_all_patches_is_refused(share):
    with pytest.raises(ValueError, match=rf"patch_dropout must be in \[0, 1\), got {share}"):
        dropping(ImageStyle.coca, share)(noise(1, 3, 32, 32))
