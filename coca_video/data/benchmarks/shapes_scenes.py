"""Scenes of the shapes benchmark: what lies where, before anything is drawn or said.

All lengths are in units of which a picture is `SIDE` wide and high; x goes right, y goes down.
"""

import math
from dataclasses import dataclass
from random import Random

SIDE = 64
KINDS = ("circle", "square", "triangle")
COLOURS = ("red", "green", "blue", "yellow")
MIN_SHAPES, MAX_SHAPES = 2, 4
RADII = (8.0, 11.0)
MARGIN = 2.5  # between two shapes, and to the curtain and the edge
CLEAR = 12.0  # two centres this far apart along an axis are left and right, or above and below
REPEATED = 0.4  # the probability that a shape has colour and kind of an earlier one
CURTAIN_WIDTH, CURTAIN_HEIGHT = (15.0, 21.0), (24.0, 40.0)
TRIES = 40  # places for a shape, before it shrinks
RELATIONS = ("left of", "right of", "above", "below")


@dataclass(frozen=True)
class Shape:
    kind: str
    colour: str
    x: float  # of the centre
    y: float
    radius: float  # of the circle that holds it
    angle: float  # degrees that it is turned by


@dataclass(frozen=True)
class Curtain:
    left: float
    top: float
    width: float
    height: float

    def distance(self, x: float, y: float) -> float:
        """From a point to the nearest of the curtain."""
        across = max(self.left - x, 0, x - self.left - self.width)
        down = max(self.top - y, 0, y - self.top - self.height)
        return math.hypot(across, down)


@dataclass(frozen=True)
class Scene:
    shapes: tuple[Shape, ...]  # those that can be seen
    curtain: Curtain | None  # may hide any others


@dataclass(frozen=True)
class Subject:
    """Shapes that one speaks of: of a colour, of a kind, of both or all."""

    colour: str = ""  # any
    kind: str = ""  # any

    @property
    def one(self) -> str:
        return f"{self.colour} {self.kind or 'shape'}".strip()

    @property
    def many(self) -> str:
        return f"{self.one}s"

    def among(self, scene: Scene) -> list[Shape]:
        """Those of the scene that can be seen."""
        return [
            shape
            for shape in scene.shapes
            if self.colour in ("", shape.colour) and self.kind in ("", shape.kind)
        ]

    def count(self, scene: Scene) -> int:
        return len(self.among(scene))


ANY = Subject()
OF_KIND = tuple(Subject(kind=kind) for kind in KINDS)
OF_COLOUR = tuple(Subject(colour=colour) for colour in COLOURS)
OF_BOTH = tuple(Subject(colour, kind) for colour in COLOURS for kind in KINDS)
PARTIAL = (*OF_KIND, *OF_COLOUR)
SUBJECTS = (*PARTIAL, *OF_BOTH)  # all but `ANY`


def make_scene(random: Random) -> Scene:
    """Two to four shapes that neither touch each other nor a curtain, which half of the scenes have."""
    looks = _looks(random)
    with_curtain = random.random() < 0.5
    while True:
        curtain = _make_curtain(random) if with_curtain else None
        shapes = _place(looks, curtain, random)
        if len(shapes) == len(looks):
            return Scene(tuple(shapes), curtain)


def offset(relation: str, first: Shape, second: Shape) -> float:
    """How far the first shape is left of (or whatever the relation is) the second."""
    across, down = second.x - first.x, second.y - first.y
    return {"left of": across, "right of": -across, "above": down, "below": -down}[relation]


def _looks(random: Random) -> list[tuple[str, str]]:
    """Kind and colour of each shape."""
    looks: list[tuple[str, str]] = []
    for _ in range(random.randint(MIN_SHAPES, MAX_SHAPES)):
        if looks and random.random() < REPEATED:
            looks.append(random.choice(looks))
        else:
            looks.append((random.choice(KINDS), random.choice(COLOURS)))
    return looks


def _make_curtain(random: Random) -> Curtain:
    width, height = random.uniform(*CURTAIN_WIDTH), random.uniform(*CURTAIN_HEIGHT)
    return Curtain(random.uniform(0, SIDE - width), random.uniform(0, SIDE - height), width, height)


def _place(looks: list[tuple[str, str]], curtain: Curtain | None, random: Random) -> list[Shape]:
    """The shapes that found a place; fewer than `looks` if one did not."""
    placed: list[Shape] = []
    for kind, colour in looks:
        radius = random.uniform(*RADII)
        while (place := _free_place(radius, placed, curtain, random)) is None:
            radius *= 0.9
            if radius < RADII[0]:
                return placed
        placed.append(Shape(kind, colour, *place, radius, random.uniform(-8, 8)))
    return placed


def _free_place(
    radius: float, placed: list[Shape], curtain: Curtain | None, random: Random
) -> tuple[float, float] | None:
    for _ in range(TRIES):
        low, high = radius + MARGIN, SIDE - radius - MARGIN
        x, y = random.uniform(low, high), random.uniform(low, high)
        if curtain and curtain.distance(x, y) < radius + MARGIN:
            continue
        if all(math.hypot(x - each.x, y - each.y) >= radius + each.radius + MARGIN for each in placed):
            return x, y
    return None
