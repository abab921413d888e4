import pytest
import reference
import torch
from tiny import noise

from coca_video.layers.patches import PatchEmbedding, Stem


def test_each_patch_is_projected_on_its_own_row_by_row():
    torch.manual_seed(0)
    patches = PatchEmbedding(6, patch_size=4, stem=Stem.patch)
    weight, bias = patches.project.weight, patches.project.bias

    def plain(pixels):
        corners = [(y, x) for y in (0, 4) for x in (0, 4, 8)]
        squares = [pixels[:, :, y : y + 4, x : x + 4] for y, x in corners]
        return torch.stack([square.flatten(1) @ weight.flatten(1).T + bias for square in squares], dim=1)

    reference.assert_equal_with_gradients(patches, plain, noise(2, 3, 8, 12))


@pytest.mark.parametrize("size", [(8, 10), (10, 8)])
@pytest.mark.parametrize("stem", Stem)
def test_sides_must_be_multiples_of_the_patch(stem, size):
    with pytest.raises(ValueError, match=f"multiples of 4, got {size[0]} x {size[1]}"):
        PatchEmbedding(8, patch_size=4, stem=stem)(torch.zeros(1, 3, *size))


def test_the_projection_can_do_without_a_bias():
    patches = PatchEmbedding(6, patch_size=4, stem=Stem.patch, bias=False)
    assert [name for name, _ in patches.named_parameters()] == ["project.weight"]
    assert (patches(torch.zeros(1, 3, 8, 8)) == 0).all()


def test_conv_stem_makes_the_same_grid():
    torch.manual_seed(0)
    patches = PatchEmbedding(8, patch_size=8, stem=Stem.conv).eval()
    pixels = noise(1, 3, 64, 64).detach()
    changed = pixels.clone()
    changed[:, :, 16:24, 48:56] += 1  # row 2, column 6 of an 8 x 8 grid
    difference = (patches(changed) - patches(pixels)).norm(dim=-1)
    assert difference.shape == (1, 64)
    row, column = divmod(difference.argmax().item(), 8)
    assert row in (2, 3) and column in (6, 7)  # a token looks further up and left than down and right
    assert (difference.view(8, 8)[:, :2] == 0).all() and (difference.view(8, 8)[6:] < difference.max()).all()


def test_conv_stem_needs_a_power_of_two():
    with pytest.raises(ValueError, match="power of 2, got 12"):
        PatchEmbedding(8, patch_size=12, stem=Stem.conv)
