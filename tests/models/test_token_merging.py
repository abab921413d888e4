import pytest
import reference
import torch
import torch.nn.functional as F
from einops import repeat
from tiny import coca, image_config, noise, shaken, temporal_config

from coca_video.errors import InputError
from coca_video.models.adaptors import Adaptor
from coca_video.models.image_encoder import ImageEncoder, ImageStyle
from coca_video.models.token_merging import encode_merging, merge, merged_places

every_style = pytest.mark.parametrize("style", ImageStyle)


def encoder(style: ImageStyle, **changes) -> ImageEncoder:
    torch.manual_seed(0)
    return shaken(ImageEncoder(image_config(image_size=32, style=style, **changes))).eval()


def plain_places(keys: torch.Tensor, num_merged: int, num_class_tokens: int) -> list[int]:
    """Of the tokens 'n d' of one frame."""
    num_tokens = len(keys)
    edges = []  # (-similarity, source, target): sorted, the nearest are first and then the earliest
    for source in range(num_class_tokens, num_tokens, 2):
        targets = range(num_class_tokens + 1, num_tokens, 2)
        edges.append(min((-F.cosine_similarity(keys[source], keys[j], dim=0), source, j) for j in targets))
    into = {source: target for _, source, target in sorted(edges)[:num_merged]}
    left = [i for i in range(num_tokens) if i not in into]
    return [left.index(into.get(i, i)) for i in range(num_tokens)]


@pytest.mark.parametrize("num_class_tokens", [0, 1])
@pytest.mark.parametrize(("num_patches", "num_merged"), [(9, 4), (9, 1), (8, 4), (8, 3), (2, 1)])
def test_matching_equals_plain_loops(num_patches, num_merged, num_class_tokens):
    keys = noise(3, num_class_tokens + num_patches, 4).detach()
    places = merged_places(keys, num_merged=num_merged, num_class_tokens=num_class_tokens)
    assert places.tolist() == [plain_places(frame, num_merged, num_class_tokens) for frame in keys]


def test_of_equal_pairs_the_first_merge():
    places = merged_places(torch.ones(1, 8, 4), num_merged=2)
    assert places.tolist() == [[0, 0, 0, 1, 2, 3, 4, 5]]


def test_the_length_of_a_key_does_not_matter():
    keys = noise(2, 8, 4)
    lengths = torch.rand(2, 8, 1) + 0.5
    assert torch.equal(merged_places(keys, num_merged=3), merged_places(keys * lengths, num_merged=3))


def test_a_class_token_stays_alone():
    places = merged_places(torch.ones(2, 9, 4), num_merged=4, num_class_tokens=1)
    assert (places[:, 0] == 0).all() and (places[:, 1:] > 0).all()


def test_means_are_weighted_by_sizes():
    places = torch.tensor([[0, 1, 1, 2, 1], [2, 0, 1, 1, 2]])
    sizes = torch.tensor([[1.0, 2, 3, 1, 1], [1, 1, 2, 2, 5]])

    def plain(tokens: torch.Tensor) -> torch.Tensor:
        rows = []
        for frame, places_of, sizes_of in zip(tokens, places, sizes):
            for place in range(3):
                own = [i for i in range(5) if places_of[i] == place]
                rows.append(sum(sizes_of[i] * frame[i] for i in own) / sum(sizes_of[i] for i in own))
        return torch.stack(rows).view(2, 3, 4)

    reference.assert_equal_with_gradients(
        lambda tokens: merge(tokens, sizes, places, num_left=3)[0], plain, noise(2, 5, 4)
    )


def test_sizes_sum_to_the_number_of_tokens():
    tokens, sizes = noise(3, 13, 4), torch.ones(3, 13)
    for num_merged in (5, 4, 1):
        places = merged_places(tokens, num_merged=num_merged, num_class_tokens=1)
        tokens, sizes = merge(tokens, sizes, places, num_left=tokens.shape[1] - num_merged)
    assert tokens.shape == (3, 3, 4) and sizes.shape == (3, 3)
    assert (sizes.sum(dim=1) == 13).all() and (sizes[:, 0] == 1).all() and (sizes == sizes.round()).all()


@pytest.mark.parametrize(("num_equal", "merged_per_block"), [(2, 4), (4, 8)])
@every_style
def test_merging_equal_patches_loses_nothing(style, num_equal, merged_per_block):
    """16 patches in runs of equal ones: after two blocks one of each run is left."""
    ours = encoder(style).double()
    torch.nn.init.zeros_(ours.positions.table)
    merging = encoder(style).double()
    merging.load_state_dict(ours.state_dict())
    merging.merged_per_block = merged_per_block

    def picture(pixels: torch.Tensor) -> torch.Tensor:
        return repeat(pixels, "b c h (x w) -> b c h (x equal w)", equal=num_equal, w=8)

    def one_of_each(pixels: torch.Tensor) -> torch.Tensor:
        first, patches = ours(picture(pixels)).tensor_split([ours.num_class_tokens], dim=1)
        return torch.cat([first, patches[:, ::num_equal]], dim=1)

    pixels = noise(2, 3, 32, 32 // num_equal).double()
    reference.assert_equal_with_gradients(
        lambda pixels: merging(picture(pixels)), one_of_each, pixels, atol=1e-10
    )


@every_style
def test_merging_nothing_changes_nothing(style):
    ours, tokens = encoder(style), noise(2, 9, 16)
    counts = {"merged_per_block": 0, "num_class_tokens": ours.num_class_tokens}
    reference.assert_equal_with_gradients(
        lambda tokens: ours.norm(encode_merging(ours.blocks, tokens, **counts)), ours.encode, tokens
    )


@pytest.mark.parametrize(
    ("merged_per_block", "num_left"), [(1, 11), (3, 2), (8, 1)], ids=["each", "until half", "half"]
)
@every_style
def test_number_of_tokens(style, merged_per_block, num_left):
    """16 patches, five blocks: each block merges at most half of what is left."""
    ours = encoder(style, num_layers=5)
    ours.merged_per_block = merged_per_block
    assert ours(noise(2, 3, 32, 32)).shape == (2, ours.num_class_tokens + num_left, 16)


@pytest.mark.parametrize("merged_per_block", [-1, 9])
@every_style
def test_more_than_half_is_refused(style, merged_per_block):
    ours = encoder(style)
    with pytest.raises(InputError, match=f"half of a picture's 16 patches, got {merged_per_block}$"):
        ours.merged_per_block = merged_per_block
    assert ours.merged_per_block == 0


@pytest.mark.parametrize("adaptor", Adaptor)
def test_frames_read_together_are_not_merged(adaptor):
    model, frames = coca(temporal=temporal_config(adaptor)), noise(2, 3, 3, 16, 16)
    model.image_encoder.merged_per_block = 1
    mask = torch.tensor([[True, True, False], [True, True, True]])
    if adaptor is Adaptor.joint:
        with pytest.raises(InputError, match="merged_per_block must be 0, got 1: the joint adaptor"):
            model.encode_video(frames, mask)
    else:
        assert model.encode_frames(frames, mask).shape == (2, 3, 2, 16)
        assert model.encode_video(frames, mask).shape == (2, 20)
