"""Which classes were taken for which, for people: a square of cells, the lighter the more often."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from coca_video.evaluation.attention_picture import COLOURS

MAX_NAMED = 60  # classes: more have numbers along the edges
MAX_WRITTEN = 20  # classes: fewer have their shares in the cells, in per cent
MAX_CELLS = (
    1000  # along an edge: where classes are more, neighbours share a cell, which shows its largest share
)
NAMED_SIDE, UNNAMED_SIDE = 800, 2000  # pixels of the square, at most where the cells' own least size allows
NAMED_CELL, UNNAMED_CELL = (20, 64), (2, 10)  # pixels, least and most
FONT_SIZE, SMALL = 14, 12  # pixels
GAP = 10  # pixels around what is drawn
NAME_LENGTH = 36  # characters; a longer name is cut
NO_EXAMPLES = (140, 140, 140)  # no colour of the scale is grey
LINE = 0.22  # how far the grid's lines are mixed with white
BAR = (240, 14)  # pixels of the legend's scale
SHARES = (0, 1, 5, 20, 50, 100)  # per cent: marked on the legend's scale
WHAT = "Rows: the true class. Columns: what it was taken for. A row's shares add up to 100 %."


def confusion_picture(counts: Tensor, classes: list[str]) -> Image.Image:
    """counts: int 'classes classes', rows: truth; classes: their names.

    A cell's lightness grows with the square root of its share of the row, so that rare mistakes can be seen.
    Raises ValueError for counts that are not square, or not as many as the names.
    """
    if not classes or counts.shape != (len(classes), len(classes)):
        wanted = f"'classes classes' of {len(classes)} classes"
        raise ValueError(f"counts must be {wanted}, got {tuple(counts.shape)}")
    per_cell = math.ceil(len(classes) / MAX_CELLS)
    shares = _merged(_shares(counts), per_cell)
    is_named = len(classes) <= MAX_NAMED
    cell = _cell_size(len(shares), is_named=is_named)
    square = Image.fromarray(_painted(shares, cell).numpy())
    legend = _legend(counts.sum(dim=1), per_cell)
    if is_named:
        _write_shares(square, shares, cell)
        left = [_label(name, bool(total)) for name, total in zip(classes, counts.sum(dim=1))]
        above = [_label(name, True).rotate(90, expand=True) for name in classes]
        places = [cell * i + cell // 2 for i in range(len(classes))]
    else:
        numbers = range(0, len(classes), _grid_step(len(classes)))
        left = above = [_text(f"{number:,}") for number in numbers]
        places = [round(cell * number / per_cell) for number in numbers]
        _draw_grid(square, places[1:])
    return _framed(square, left, above, places=places, legend=legend)


def _shares(counts: Tensor) -> Tensor:
    """Of each row, 0 to 1; NaN in a row without examples."""
    counts = counts.cpu().float()
    return counts / counts.sum(dim=1, keepdim=True)


def _merged(shares: Tensor, per_cell: int) -> Tensor:
    """Only where no class of a cell has examples does it stay NaN."""
    if per_cell == 1:
        return shares
    largest = F.max_pool2d(shares.nan_to_num(-1.0)[None], per_cell, ceil_mode=True)[0]
    return largest.masked_fill(largest < 0, torch.nan)


def _cell_size(num_cells: int, *, is_named: bool) -> int:
    side, (least, most) = (NAMED_SIDE, NAMED_CELL) if is_named else (UNNAMED_SIDE, UNNAMED_CELL)
    return min(max(side // num_cells, least), most)


def _painted(shares: Tensor, cell: int) -> Tensor:
    """Shares 'rows columns' -> uint8 'h w c', a square of `cell` pixels each."""
    colours = _scale(shares.nan_to_num())
    colours[shares.isnan()] = torch.tensor(NO_EXAMPLES, dtype=torch.uint8)
    return colours.repeat_interleave(cell, dim=0).repeat_interleave(cell, dim=1)


def _scale(shares: Tensor) -> Tensor:
    """0 to 1 '...' -> uint8 '... c'."""
    palette = F.interpolate(COLOURS.T[None], size=256, mode="linear", align_corners=True)
    palette = rearrange(palette, "1 c n -> n c").round().byte()
    return palette[(shares.sqrt() * 255).round().long()]


def _write_shares(square: Image.Image, shares: Tensor, cell: int) -> None:
    """Per cent, in cells that are large enough; none where it would be 0."""
    if len(shares) > MAX_WRITTEN:
        return
    draw, font = ImageDraw.Draw(square), ImageFont.load_default(SMALL)
    for i, row in enumerate(shares.tolist()):
        for j, share in enumerate(row):
            if share >= 0.005:
                place = (cell * (j + 0.5), cell * (i + 0.5))
                draw.text(place, f"{100 * share:.0f}", "black" if share > 0.3 else "white", font, anchor="mm")


def _grid_step(num_classes: int) -> int:
    """Classes between lines: 10, 100, ... or twice or five times as many; about a dozen lines at most."""
    return next(f * 10**p for p in range(1, 9) for f in (1, 2, 5) if num_classes <= 12 * f * 10**p)


def _draw_grid(square: Image.Image, places: list[int]) -> None:
    """Lines that let the cells below them through."""
    over = square.copy()
    draw = ImageDraw.Draw(over)
    for place in places:
        draw.line([(place, 0), (place, square.height)], "white")
        draw.line([(0, place), (square.width, place)], "white")
    square.paste(Image.blend(square, over, LINE))


def _label(text: str, has_examples: bool) -> Image.Image:
    if len(text) > NAME_LENGTH:
        text = text[: NAME_LENGTH - 1] + "…"
    return _text(text, "black" if has_examples else NO_EXAMPLES)


def _text(text: str, colour: str | tuple[int, ...] = "black", size: int = FONT_SIZE) -> Image.Image:
    """As high as any line of its size, so that letters stand on one line wherever they are pasted."""
    font = ImageFont.load_default(size)
    width = math.ceil(font.getlength(text)) + 1
    image = Image.new("RGB", (width, sum(font.getmetrics())), "white")
    ImageDraw.Draw(image).text((0, 0), text, colour, font)
    return image


def _legend(num_examples: Tensor, per_cell: int) -> Image.Image:
    """What rows and columns are, the scale, and how a class without examples looks if there is one."""
    merged = f" A cell is the largest of {per_cell} x {per_cell} classes." if per_cell > 1 else ""
    what = _text(WHAT + merged)
    width, height = BAR
    bar = Image.fromarray(_scale(torch.linspace(0, 1, width).square().expand(height, width)).numpy())
    legend = Image.new("RGB", (what.width, what.height + height + SMALL + 3 * GAP), "white")
    legend.paste(what, (0, 0))
    top = what.height + GAP
    legend.paste(bar, (GAP, top))
    draw, font = ImageDraw.Draw(legend), ImageFont.load_default(SMALL)
    for share in SHARES:
        x = GAP + round((width - 1) * math.sqrt(share / 100))
        draw.line([(x, top + height), (x, top + height + 3)], "black")
        draw.text(
            (x, top + height + 5), f"{share} %" if share == 100 else f"{share}", "black", font, anchor="mt"
        )
    if num_empty := int((num_examples == 0).sum()):
        x = width + 4 * GAP
        draw.rectangle([x, top, x + height, top + height], NO_EXAMPLES)
        said = f"no examples: {num_empty:,} of {len(num_examples):,} classes"
        draw.text((x + height + 6, top + height // 2), said, "black", font, anchor="lm")
    return legend


def _framed(
    square: Image.Image,
    left: list[Image.Image],
    above: list[Image.Image],
    *,
    places: list[int],
    legend: Image.Image,
) -> Image.Image:
    """The square with its labels, whose middles stand at `places`, and the legend."""
    x0 = GAP + max(label.width for label in left) + GAP // 2
    y0 = GAP + max(label.height for label in above) + GAP // 2
    width = max(x0 + square.width, GAP + legend.width) + GAP
    picture = Image.new("RGB", (width, y0 + square.height + GAP + legend.height), "white")
    picture.paste(square, (x0, y0))
    picture.paste(legend, (GAP, y0 + square.height + GAP))
    for place, of_row, of_column in zip(places, left, above):
        picture.paste(of_row, (x0 - GAP // 2 - of_row.width, y0 + place - of_row.height // 2))
        picture.paste(of_column, (x0 + place - of_column.width // 2, y0 - GAP // 2 - of_column.height))
    return picture
