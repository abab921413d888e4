"""How the settings of a sweep did, for people: a cell each, the lighter the better."""

from collections.abc import Mapping, Sequence

import torch
from PIL import Image, ImageDraw, ImageFont

FONT_SIZE = 14  # pixels
GAP = 10
CELL = (84, 44)  # pixels, width and height
# From the worst of the sweep to its best; after matplotlib's viridis.
COLOURS = torch.tensor([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]).float()
NOTHING = (140, 140, 140)  # diverged
DARK = 0.55  # of the scale: below it numbers are white


def sweep_picture(
    values: Mapping[tuple[float, float], float | None],
    *,
    rows: tuple[str, Sequence[float]],
    columns: tuple[str, Sequence[float]],
    chosen: tuple[float, float],
    title: str,
) -> Image.Image:
    """values: by (row, column), None where there is nothing; rows and columns: what they are, and each one's.

    The chosen cell has a frame.
    """
    font = ImageFont.load_default(FONT_SIZE)
    (row_name, row_values), (column_name, column_values) = rows, columns
    width, height = CELL
    title = f"{title}\nrows: {row_name}, columns: {column_name}"
    left = GAP * 2 + max(_extent(f"{value:g}", font)[0] for value in row_values)
    top = GAP * 3 + FONT_SIZE + _extent(title, font)[1]
    size = (max(left + width * len(column_values), _extent(title, font)[0] + GAP) + GAP, 0)
    picture = Image.new("RGB", (size[0], top + height * len(row_values) + GAP), "white")
    draw = ImageDraw.Draw(picture)
    draw.multiline_text((GAP, GAP), title, "black", font)
    for j, value in enumerate(column_values):
        draw.text((left + width * j + width // 2, top - GAP // 2), f"{value:g}", "black", font, anchor="ms")
    for i, row in enumerate(row_values):
        draw.text((left - GAP, top + height * i + height // 2), f"{row:g}", "black", font, anchor="rm")
        for j, column in enumerate(column_values):
            corner = (left + width * j, top + height * i)
            _cell(draw, corner, values, (row, column), font, is_chosen=(row, column) == chosen)
    return picture


def _cell(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    values: Mapping[tuple[float, float], float | None],
    which: tuple[float, float],
    font: ImageFont.FreeTypeFont,
    *,
    is_chosen: bool,
) -> None:
    (x, y), (width, height) = corner, CELL
    value = values.get(which)
    share = None if value is None else _share(value, [each for each in values.values() if each is not None])
    box = (x, y, x + width - 2, y + height - 2)
    draw.rectangle(box, NOTHING if share is None else _colour(share))
    if is_chosen:
        draw.rectangle(box, outline="red", width=3)
    text = "-" if value is None else f"{value:.1f}"
    colour = "white" if share is None or share < DARK else "black"
    draw.text((x + width // 2, y + height // 2), text, colour, font, anchor="mm")


def _share(value: float, values: list[float]) -> float:
    """Where it lies between the least and the largest."""
    least, most = min(values), max(values)
    return 1.0 if least == most else (value - least) / (most - least)


def _colour(share: float) -> tuple[int, ...]:
    place = share * (len(COLOURS) - 1)
    before = min(int(place), len(COLOURS) - 2)
    return tuple(torch.lerp(COLOURS[before], COLOURS[before + 1], place - before).round().int().tolist())


def _extent(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """Width and height in pixels."""
    *_, width, height = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((0, 0), text, font)
    return int(width) + 1, int(height) + 1
