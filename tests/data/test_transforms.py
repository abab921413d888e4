import pytest
import torch
from torch import Tensor

from coca_video.data.transforms import Augmentation, Preprocessing, Resize

SIZE = 32


def picture(*, top: int = 12, left: int = 12, side: int = 8, size: int = SIZE) -> Tensor:
    """A white square on black, in the middle unless moved: one clip of one frame, 'b t c h w'."""
    frames = torch.zeros(1, 1, 3, size, size, dtype=torch.uint8)
    frames[..., top : top + side, left : left + side] = 255
    return frames


def random_clips(num_clips: int, num_frames: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    shape = (num_clips, num_frames, 3, SIZE, SIZE)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def augmented(frames: Tensor, *, seed: int = 0, size: int = SIZE, **settings: float) -> Tensor:
    return Augmentation(**settings)(frames, size=size, generator=torch.Generator().manual_seed(seed))


def centre(frames: Tensor) -> tuple[float, float]:
    """Centre of mass of the light, (row, column) in pixels."""
    light = frames[0, 0].mean(dim=0)
    place = torch.arange(len(light)) + 0.5
    row, column = ((light.sum(dim=dim) * place).sum() / light.sum() for dim in (1, 0))
    return row.item(), column.item()


GEOMETRY = {"degrees": 20, "min_scale": 0.7, "max_scale": 1.3, "shift": 0.1, "flip": 0.5}
EVERYTHING = GEOMETRY | {"color": 0.4, "gray": 0.3}


def test_no_augmentation_leaves_the_frames_alone():
    frames = random_clips(2, 3)
    torch.testing.assert_close(augmented(frames), frames.float(), atol=0.01, rtol=0)


def test_all_frames_of_a_clip_are_treated_alike_and_clips_differently():
    frame = random_clips(1, 1)
    out = augmented(frame.expand(3, 4, -1, -1, -1), **EVERYTHING)
    assert out.shape == (3, 4, 3, SIZE, SIZE) and out.dtype == torch.float32
    assert torch.equal(out, out[:, :1].expand_as(out))
    assert all((out[i] - out[j]).abs().mean() > 5 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_the_generator_decides_everything():
    frames = random_clips(2, 2)
    torch.manual_seed(1)
    once = augmented(frames, **EVERYTHING)
    torch.manual_seed(2)
    assert torch.equal(once, augmented(frames, **EVERYTHING))
    assert not torch.equal(once, augmented(frames, seed=1, **EVERYTHING))


def test_values_stay_in_range():
    out = augmented(random_clips(16, 1), **EVERYTHING)
    assert out.min() >= 0 and out.max() <= 255


def test_a_shift_moves_the_picture_by_at_most_its_share_of_the_side():
    centres = [centre(augmented(picture(), seed=seed, shift=0.25)) for seed in range(200)]
    moved = torch.tensor(centres) - SIZE / 2
    assert moved.abs().max() <= 8 and moved.abs().amax(dim=0).min() > 7.5
    assert moved.mean(dim=0).abs().max() < 1.5  # both ways, up and down as left and right


def test_a_shift_moves_and_nothing_else():
    out = augmented(picture(), shift=0.25)
    row, column = centre(out)
    assert out.sum().item() == pytest.approx(picture().sum().item(), rel=1e-4)
    top, left = int(row - 4), int(column - 4)
    assert (out[0, 0, :, top + 1 : top + 8, left + 1 : left + 8] > 254.9).all()


def test_a_certain_flip_mirrors():
    frames = random_clips(2, 2)
    torch.testing.assert_close(augmented(frames, flip=1.0), frames.flip(-1).float(), atol=0.01, rtol=0)


def test_flip_is_a_probability():
    frames = random_clips(1, 1).expand(400, 1, -1, -1, -1)
    mirrored = (augmented(frames, flip=0.25) - frames).abs().mean(dim=(1, 2, 3, 4)) > 1
    assert 0.18 < mirrored.float().mean() < 0.32


@pytest.mark.parametrize("scale, side", [(0.5, 4), (2.0, 16)])
def test_scale_two_makes_things_twice_as_large(scale, side):
    out = augmented(picture(), min_scale=scale, max_scale=scale)
    assert out[0, 0, 0].sum().item() / 255 == pytest.approx(side**2, rel=0.05)
    assert centre(out) == pytest.approx((SIZE / 2, SIZE / 2))


def test_scale_is_drawn_between_its_bounds():
    zoomed = [augmented(picture(), seed=seed, min_scale=0.5, max_scale=2.0) for seed in range(100)]
    sides = torch.stack([frames[0, 0, 0].sum() / 255 for frames in zoomed]).sqrt()
    assert 3.8 < sides.min() < 5 and 15 < sides.max() < 16.2


def test_rotation_is_about_the_centre_and_at_most_degrees():
    dot = picture(top=14, left=26, side=4)  # right of the centre
    angles = []
    for seed in range(200):
        row, column = centre(augmented(dot, seed=seed, degrees=30))
        assert torch.tensor([row - 16, column - 16]).norm().item() == pytest.approx(12, abs=0.2)
        angles.append(torch.atan2(torch.tensor(row - 16), torch.tensor(column - 16)).rad2deg())
    angles = torch.stack(angles)
    assert -30.5 < angles.min() < -28 and 28 < angles.max() < 30.5


def test_what_comes_in_at_the_border_continues_it():
    white = torch.full((4, 1, 3, SIZE, SIZE), 255, dtype=torch.uint8)
    out = augmented(white, degrees=45, min_scale=0.5, max_scale=0.5, shift=0.3)
    torch.testing.assert_close(out, white.float(), atol=0.01, rtol=0)


def test_the_size_is_chosen_apart_from_the_frames():
    assert augmented(picture(), size=16).shape == (1, 1, 3, 16, 16)
    assert centre(augmented(picture(top=4, left=20), size=16)) == pytest.approx((4, 12), abs=0.05)


def test_certain_gray_has_no_colour():
    out = augmented(random_clips(2, 1), gray=1.0)
    torch.testing.assert_close(out[:, :, 0], out[:, :, 1], atol=0.01, rtol=0)
    torch.testing.assert_close(out[:, :, 0], random_clips(2, 1).float().mean(dim=2), atol=0.01, rtol=0)


def test_colour_changes_pixels_in_place():
    """The same colour everywhere before is the same colour everywhere after."""
    flat = torch.tensor([200, 40, 90], dtype=torch.uint8).view(1, 1, 3, 1, 1).expand(8, 1, 3, SIZE, SIZE)
    out = augmented(flat, color=0.5)
    torch.testing.assert_close(out, out[..., :1, :1].expand_as(out))
    assert out[..., 0, 0].std(dim=0).min() > 5


@pytest.mark.parametrize("shape", [(2, 3, 24, 40), (2, 3, 40, 24)])
def test_resize_modes(shape):
    """A square of 12 pixels keeps its form in one mode and loses it in the other."""
    frames = torch.zeros(shape, dtype=torch.uint8)
    height, width = shape[2:]
    frames[..., height // 2 - 6 : height // 2 + 6, width // 2 - 6 : width // 2 + 6] = 255
    for mode, sides in ((Resize.center_crop, [24, 24]), (Resize.squash, [12 * 48 / 40, 24])):
        out = Preprocessing(resize=mode).resized(frames, size=48)
        assert out.shape == (2, 3, 48, 48) and out.dtype == torch.uint8
        light = (out[0, 0] > 127).int()
        found = sorted([light.any(dim=0).sum().item(), light.any(dim=1).sum().item()])
        assert found == pytest.approx(sides, abs=1)


def test_frames_of_the_right_size_stay_as_they_are():
    frames = random_clips(1, 2)[0]
    for mode in Resize:
        assert torch.equal(Preprocessing(resize=mode).resized(frames, size=SIZE), frames)


def test_center_crop_keeps_the_middle():
    frames = torch.arange(8, dtype=torch.uint8).expand(1, 3, 4, 8)
    cropped = Preprocessing().resized(frames, size=4)
    assert cropped[0, 0, 0].tolist() == [2, 3, 4, 5]


def test_normalised_takes_mean_and_std_out_of_each_channel():
    preprocessing = Preprocessing(mean=[0.2, 0.4, 0.6], std=[0.1, 0.2, 0.4])
    frames = torch.tensor([51, 204, 255], dtype=torch.uint8).view(1, 1, 3, 1, 1)
    expected = torch.tensor([0.0, 2.0, 1.0]).view(1, 1, 3, 1, 1)
    torch.testing.assert_close(preprocessing.normalised(frames), expected)
    torch.testing.assert_close(preprocessing.normalised(frames.float()), expected)


def test_normalised_frames_have_no_mean_and_unit_spread():
    plain = random_clips(2, 2) / 255
    mean, std = (getattr(plain, name)(dim=(0, 1, 3, 4)).tolist() for name in ("mean", "std"))
    out = Preprocessing(mean=mean, std=std).normalised(random_clips(2, 2))
    torch.testing.assert_close(out.mean(dim=(0, 1, 3, 4)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.std(dim=(0, 1, 3, 4)), torch.ones(3), atol=1e-4, rtol=0)
