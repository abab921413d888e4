import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from coca_video.evaluation.attention_picture import COLOURS
from coca_video.evaluation.confusion_picture import MAX_NAMED, NO_EXAMPLES, confusion_picture

NONE, ALL = COLOURS[0].int().tolist(), COLOURS[-1].int().tolist()
LUMA = np.array([0.299, 0.587, 0.114])


def picture_of(counts: Tensor, classes: list[str] | None = None) -> Image.Image:
    return confusion_picture(counts, classes or [f"c{i}" for i in range(len(counts))])


def places_of(pixels: np.ndarray, colour: list[int] | tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return np.nonzero((pixels == colour).all(axis=-1))


def square_of(picture: Image.Image) -> np.ndarray:
    """The square of cells: it alone has columns without white as high as itself."""
    pixels = np.asarray(picture).astype(int)
    above = np.pad((pixels < 255).any(axis=-1), ((1, 1), (0, 0))).astype(int)
    starts, ends = np.diff(above.T) == 1, np.diff(above.T) == -1  # in their order, column by column
    heights = np.nonzero(ends)[1] - np.nonzero(starts)[1]
    columns, tops = (each[heights == heights.max()] for each in np.nonzero(starts))
    return pixels[tops[0] : tops[0] + heights.max(), columns[0] : columns[-1] + 1]


def cells_of(picture: Image.Image, num_classes: int) -> np.ndarray:
    """One colour a cell, near its upper left corner, where no figure is written: 'classes classes c'."""
    square = square_of(picture)
    assert square.shape[0] == square.shape[1] and square.shape[0] % num_classes == 0
    size = square.shape[0] // num_classes
    corner = max(size // 8, 1)
    return square[corner::size, corner::size]


def test_all_in_one_place_is_lightest_and_nothing_is_darkest():
    cells = cells_of(picture_of(torch.tensor([[7, 0], [3, 0]])), 2)
    assert cells.tolist() == [[ALL, NONE], [ALL, NONE]]


def test_lightness_grows_with_the_share_of_the_row_not_with_the_count():
    counts = torch.tensor([[1, 3, 6, 40], [0, 100, 0, 0], [1, 1, 0, 0], [500, 500, 0, 0]])
    cells = cells_of(picture_of(counts), 4)
    lightness = cells @ LUMA
    assert (np.diff(lightness[0]) > 15).all()
    assert cells[2].tolist() == cells[3].tolist()
    assert lightness[1, 1] > lightness[0, 3] > lightness[2, 0] > lightness[0, 2]


@pytest.mark.parametrize("num_classes", [3, 20, 60, 61, 400])
def test_cells_stand_where_their_classes_are(num_classes):
    counts = torch.eye(num_classes, dtype=torch.int64)
    counts[0], counts[-1] = counts[1].clone(), counts[0].clone()
    cells = cells_of(picture_of(counts), num_classes)
    lit = cells.sum(axis=-1) > sum(NONE) + 400
    assert (torch.from_numpy(lit) == counts.bool()).all()


def test_a_class_without_examples_is_grey_and_counted():
    counts = torch.tensor([[5, 0, 0], [0, 0, 0], [0, 0, 5]])
    empty, full = picture_of(counts), picture_of(torch.eye(3, dtype=torch.int64))
    grey = places_of(np.asarray(empty), NO_EXAMPLES)
    assert len(grey[0]) > 3 * 64 * 64  # its row, and the legend's key
    assert len(places_of(np.asarray(full), NO_EXAMPLES)[0]) < 20  # edges of letters


def test_names_are_written_for_few_classes():
    """Along both edges: longer names need room to the left and above."""
    counts = torch.eye(18, dtype=torch.int64)
    short, long = picture_of(counts, ["a"] * 18), picture_of(counts, ["a much longer name"] * 18)
    assert long.width > short.width + 60 and long.height > short.height + 60
    longest = picture_of(counts, ["name " * 100] * 18)
    assert longest.width < long.width + 200
    many = torch.eye(MAX_NAMED + 1, dtype=torch.int64)
    assert picture_of(many, ["a"] * len(many)).size == picture_of(many, ["longer name"] * len(many)).size


@pytest.mark.parametrize("num_classes", [1, 60, 101, 700, 1000, 1001, 2500])
def test_size_is_bounded(num_classes):
    picture = picture_of(torch.ones(num_classes, num_classes, dtype=torch.int64))
    assert picture.mode == "RGB" and max(picture.size) < 2200
    assert min(picture.size) > min(2 * min(num_classes, 500), 150)


def test_where_classes_share_a_cell_the_largest_share_is_shown():
    counts = torch.zeros(1500, 1500, dtype=torch.int64)
    counts[:, 701] = 1
    lit = cells_of(picture_of(counts), 750) == ALL
    assert lit.all(axis=-1).all(axis=0).nonzero()[0].tolist() == [701 // 2]


def test_the_same_counts_give_the_same_picture():
    counts = torch.randint(0, 9, (30, 30), generator=torch.Generator().manual_seed(0))
    assert picture_of(counts).tobytes() == picture_of(counts.clone()).tobytes()


@pytest.mark.parametrize("shape", [(2, 3), (3, 3), (4,)])
def test_counts_are_one_row_and_column_a_class(shape):
    with pytest.raises(ValueError, match=r"counts must be 'classes classes' of 2 classes, got \("):
        confusion_picture(torch.ones(shape, dtype=torch.int64), ["a", "b"])
