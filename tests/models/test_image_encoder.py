import pytest
import reference
import torch
from tiny import image_config, noise, shaken

from coca_video.layers.positions import resize_grid
from coca_video.models.image_encoder import ImageEncoder, ImageStyle

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
