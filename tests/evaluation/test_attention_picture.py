import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from coca_video.evaluation.attention_picture import COLOURS, GAP, OPACITY, attention_picture

HEIGHT, WIDTH = 40, 60  # pixels of a frame, more than a label of one line needs


def frames_of(*colours: int) -> Tensor:
    """A grey frame for each."""
    return torch.tensor(colours, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, HEIGHT, WIDTH)


def cells(picture: Image.Image, *, num_rows: int, num_frames: int) -> np.ndarray:
    """'row t h w c': what stands in the lower right of the picture."""
    pixels = np.asarray(picture).astype(int)[-num_rows * (HEIGHT + GAP) :, -num_frames * (WIDTH + GAP) :]
    rows = pixels.reshape(num_rows, HEIGHT + GAP, num_frames, WIDTH + GAP, 3).swapaxes(1, 2)
    assert (rows[:, :, HEIGHT:] == 255).all() and (rows[:, :, :, WIDTH:] == 255).all()
    return rows[:, :, :HEIGHT, :WIDTH]


def under(colour: int, heat: int) -> np.ndarray:
    """A grey under the first (0) or last (-1) colour of the scale."""
    return ((1 - OPACITY) * colour + OPACITY * COLOURS[heat]).round().int().numpy()


def test_a_row_for_each_map_and_a_column_for_each_frame():
    frames, weights = frames_of(0, 90, 255), torch.rand(3, 2, 2)
    one, two = (attention_picture(frames, [("a", weights)] * num_rows) for num_rows in (1, 2))
    assert two.mode == "RGB" and two.width == one.width
    assert (one.height, two.height) == (HEIGHT + 2 * GAP, 2 * HEIGHT + 3 * GAP)
    shorter = attention_picture(frames[:2], [("a", weights[:2])])
    assert one.width - shorter.width == WIDTH + GAP


@pytest.mark.parametrize("weight, heat", [(0.0, 0), (1e-9, -1), (0.25, -1)])
def test_constant_maps_are_one_end_of_the_scale(weight, heat):
    picture = attention_picture(frames_of(0, 255), [("a", torch.full((2, 3, 5), weight))])
    for frame, colour in zip(cells(picture, num_rows=1, num_frames=2)[0], (0, 255)):
        assert (frame == under(colour, heat)).all()


def test_all_colour_is_heat():
    """A yellow frame under a map looks as the grey of its lightness does."""
    yellow = frames_of(255)
    yellow[:, 2] = 0
    ours, greys = (
        cells(attention_picture(frames, [("a", torch.eye(2)[None])]), num_rows=1, num_frames=1)
        for frames in (yellow, frames_of(226))
    )
    assert np.abs(ours - greys).max() <= 1


@pytest.mark.parametrize("colour", [0, 255])
@pytest.mark.parametrize("rows, columns", [(2, 3), (4, 4), (5, 2)])
def test_the_heat_is_where_the_map_is(rows, columns, colour):
    weights = torch.zeros(3, rows, columns)
    weights[1, rows - 1, 1] = 0.3
    picture = attention_picture(frames_of(colour, colour, colour), [("a", weights)])
    before, looked, after = cells(picture, num_rows=1, num_frames=3)[0]
    assert (before == under(colour, 0)).all() and (after == under(colour, 0)).all()
    y, x = np.unravel_index(looked.sum(axis=-1).argmax(), (HEIGHT, WIDTH))
    assert (y * rows // HEIGHT, x * columns // WIDTH) == (rows - 1, 1)
    assert np.abs(looked[y, x] - under(colour, -1)).max() <= 25


def test_a_row_has_its_own_scale_shared_by_its_frames():
    weights = torch.tensor([1.0, 0.5]).view(2, 1, 1)
    picture = attention_picture(frames_of(90, 90), [("a", weights), ("b", weights / 1000)])
    first, second = cells(picture, num_rows=2, num_frames=2)
    assert (first == second).all()
    assert (first[0] == under(90, -1)).all() and (first[1] == under(90, 2)).all()


def test_labels_of_any_length_are_written_whole():
    def ink(label: str) -> np.ndarray:
        picture = attention_picture(frames_of(0), [(label, torch.ones(1, 2, 2))])
        left = np.asarray(picture)[:, : -WIDTH - 2 * GAP]
        for margin in (left[:GAP], left[-GAP:], left[:, : GAP - 1]):
            assert (margin == 255).all()
        return (left < 128).sum()

    assert ink("") == 0 < ink("word")
    assert ink("word" * 30) > 25 * ink("word")
    assert ink("a word and one more, " * 12) > 10 * ink("a word and one more,")


def test_times_stand_above_their_frames():
    frames, maps = frames_of(0, 255), [("a", torch.rand(2, 2, 2))]
    with_times, without = attention_picture(frames, maps, times=[0.0, 1.5]), attention_picture(frames, maps)
    assert with_times.width == without.width and with_times.height > without.height
    ours, theirs = (cells(picture, num_rows=1, num_frames=2) for picture in (with_times, without))
    assert (ours == theirs).all()
    header = np.asarray(with_times)[: with_times.height - without.height, -2 * (WIDTH + GAP) :]
    for above in (header[:, :WIDTH], header[:, WIDTH + GAP : -GAP]):
        assert (above < 128).any()


def test_maps_and_times_are_one_for_each_frame():
    with pytest.raises(ValueError, match="'red' must have one entry for each of 2 frames, got 3"):
        attention_picture(frames_of(0, 0), [("red", torch.zeros(3, 2, 2))])
    with pytest.raises(ValueError, match="'times' must have one entry for each of 2 frames, got 1"):
        attention_picture(frames_of(0, 0), [("red", torch.zeros(2, 2, 2))], times=[0.0])
