"""Pictures of the shapes benchmark, from its scenes."""

import io
import math
from random import Random

from PIL import Image, ImageDraw

from coca_video.data.benchmarks.shapes_scenes import SIDE, Curtain, Scene, Shape

SUPERSAMPLED = 2
CORNERS = {"square": (45, 135, 225, 315), "triangle": (90, 210, 330)}  # degrees
CIRCLE = 0.85  # of the radius: as large to the eye as the others
RGB = {"red": (214, 48, 42), "green": (44, 154, 66), "blue": (44, 86, 206), "yellow": (236, 200, 40)}
JITTER = 18  # of each channel of a shape's colour
PALEST = 234  # of the background's channels
TINTS = 3  # the background is a smooth field of this many tints each way


def draw(scene: Scene, random: Random, *, size: int = SIDE) -> Image.Image:
    """A picture of `size` pixels each way. `random` gives tints and shades."""
    picture = _background(random, size * SUPERSAMPLED)
    pen, scale = ImageDraw.Draw(picture), size * SUPERSAMPLED / SIDE
    if scene.curtain:
        _draw_curtain(pen, scene.curtain, random, scale)
    for shape in scene.shapes:
        _draw_shape(pen, shape, random, scale)
    return picture.reduce(SUPERSAMPLED)


def as_png(picture: Image.Image) -> bytes:
    """Written for speed."""
    file = io.BytesIO()
    picture.save(file, "png", compress_level=1)
    return file.getvalue()


def _background(random: Random, size: int) -> Image.Image:
    tints = bytes(random.randint(PALEST, 255) for _ in range(3 * TINTS * TINTS))
    return Image.frombytes("RGB", (TINTS, TINTS), tints).resize((size, size), Image.Resampling.BILINEAR)


def _draw_curtain(pen: ImageDraw.ImageDraw, curtain: Curtain, random: Random, scale: float) -> None:
    """Grey, with darker folds."""
    shade, folds = random.randint(135, 175), random.randint(3, 5)
    left, top = curtain.left * scale, curtain.top * scale
    right, bottom = left + curtain.width * scale, top + curtain.height * scale
    pen.rectangle((left, top, right, bottom), (shade,) * 3)
    for fold in range(1, folds):
        x = left + (right - left) * fold / folds
        pen.line((x, top, x, bottom), (shade - 25,) * 3, width=max(1, round(scale / 2)))


def _draw_shape(pen: ImageDraw.ImageDraw, shape: Shape, random: Random, scale: float) -> None:
    colour = tuple(
        min(max(channel + random.randint(-JITTER, JITTER), 0), 255) for channel in RGB[shape.colour]
    )
    x, y, radius = shape.x * scale, shape.y * scale, shape.radius * scale
    if shape.kind == "circle":
        radius *= CIRCLE
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), colour)
        return
    angles = [math.radians(corner + shape.angle) for corner in CORNERS[shape.kind]]
    pen.polygon([(x + radius * math.cos(each), y - radius * math.sin(each)) for each in angles], colour)
