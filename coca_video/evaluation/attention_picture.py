"""Where a model looked, for people: a clip's frames, in grey, under the heat of attention, one row a map."""

import textwrap
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

FONT_SIZE = 14  # pixels
GAP = 8  # pixels around every cell
LINE_LENGTH = 20  # characters of a label
OPACITY = 0.6  # of the heat; what lies below keeps its shapes, on white as on black
LUMA = torch.tensor([0.299, 0.587, 0.114])  # of red, green, blue (ITU-R BT.601)
# Black, violet, red, orange, yellow: lightness grows evenly (after matplotlib's inferno).
COLOURS = torch.tensor([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]]).float()


def attention_picture(
    frames: Tensor, maps: Sequence[tuple[str, Tensor]], *, times: Sequence[float] | None = None
) -> Image.Image:
    """frames: uint8 't c h w'; maps: (label, weights 't h w' on any grid); times: of the frames, seconds.

    Colours run from 0 to the largest weight of a row.
    Raises ValueError for maps or times that are not one for each frame.
    """
    for name, values in [*maps, *([] if times is None else [("times", times)])]:
        if len(values) != len(frames):
            allowed = f"one entry for each of {len(frames)} frames"
            raise ValueError(f"{name!r} must have {allowed}, got {len(values)}")
    header = [] if times is None else [[_text(""), *(_text(f"{time:.2f} s") for time in times)]]
    return _table(header + [[_text(label), *_heated(frames, weights)] for label, weights in maps])


def _heated(frames: Tensor, weights: Tensor) -> list[Image.Image]:
    weights = weights.float().cpu()
    heat = weights / weights.max().clamp(min=torch.finfo(weights.dtype).tiny)
    heat = F.interpolate(rearrange(heat, "t h w -> t 1 h w"), size=frames.shape[-2:], mode="bilinear")
    # Frames are grey, so that every colour is heat: a yellow face would look attended to.
    grey = torch.einsum("tchw,c->thw", frames.float().cpu(), LUMA).unsqueeze(-1)
    mixed = torch.lerp(grey, _coloured(heat.squeeze(1)), OPACITY)
    return [Image.fromarray(pixels) for pixels in mixed.round().byte().numpy()]


def _coloured(heat: Tensor) -> Tensor:
    """0 to 1, 't h w' -> 't h w c' between neighbours of COLOURS."""
    place = heat * (len(COLOURS) - 1)
    before = place.long().clamp(max=len(COLOURS) - 2)
    return torch.lerp(COLOURS[before], COLOURS[before + 1], (place - before).unsqueeze(-1))


def _text(text: str) -> Image.Image:
    """Black on white, in lines of at most LINE_LENGTH characters."""
    lines, font = "\n".join(textwrap.wrap(text, LINE_LENGTH)), ImageFont.load_default(FONT_SIZE)
    *_, width, height = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((0, 0), lines, font)
    image = Image.new("RGB", (int(width) + 1, int(height) + 1), "white")
    ImageDraw.Draw(image).multiline_text((0, 0), lines, "black", font)
    return image


def _table(rows: list[list[Image.Image]]) -> Image.Image:
    """On white, each cell in the middle of its row and column."""
    heights = [max(cell.height for cell in row) + GAP for row in rows]
    widths = [max(cell.width for cell in column) + GAP for column in zip(*rows)]
    table = Image.new("RGB", (sum(widths) + GAP, sum(heights) + GAP), "white")
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            x = GAP + sum(widths[:j]) + (widths[j] - GAP - cell.width) // 2
            y = GAP + sum(heights[:i]) + (heights[i] - GAP - cell.height) // 2
            table.paste(cell, (x, y))
    return table
