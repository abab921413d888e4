import math
from itertools import combinations
from random import Random

import pytest
from shapes import scene

from coca_video.data.benchmarks.shapes_scenes import (
    MARGIN,
    OF_BOTH,
    RADII,
    SIDE,
    Subject,
    make_scene,
    offset,
)

SCENES = [make_scene(Random(seed)) for seed in range(400)]


def test_numbers_curtains_and_looks():
    assert {len(each.shapes) for each in SCENES} == {2, 3, 4}
    assert 150 < sum(each.curtain is not None for each in SCENES) < 250
    looks = {(shape.colour, shape.kind) for each in SCENES for shape in each.shapes}
    assert looks == {(subject.colour, subject.kind) for subject in OF_BOTH}


def test_shapes_keep_apart_and_within_the_picture():
    for each in SCENES:
        for shape in each.shapes:
            assert RADII[0] <= shape.radius <= RADII[1]
            for place in (shape.x, shape.y):
                assert shape.radius + MARGIN <= place <= SIDE - shape.radius - MARGIN
        for one, other in combinations(each.shapes, 2):
            assert math.dist((one.x, one.y), (other.x, other.y)) >= one.radius + other.radius + MARGIN


def test_nothing_touches_a_curtain():
    """By points on the edges of the shapes, rather than by the curtain's own arithmetic."""
    for each in SCENES:
        for shape in each.shapes if each.curtain else ():
            for degrees in range(0, 360, 5):
                x = shape.x + shape.radius * math.cos(math.radians(degrees))
                y = shape.y + shape.radius * math.sin(math.radians(degrees))
                is_across = each.curtain.left <= x <= each.curtain.left + each.curtain.width
                assert not (is_across and each.curtain.top <= y <= each.curtain.top + each.curtain.height)


def test_a_scene_follows_from_its_seed():
    assert make_scene(Random("a")) == make_scene(Random("a")) != make_scene(Random("b"))


def test_subjects():
    several = scene("red circle 10 10", "red square 30 10", "blue circle 50 10")
    assert Subject("red").count(several) == Subject(kind="circle").count(several) == 2
    assert Subject("red", "circle").count(several) == 1 and Subject("green").count(several) == 0
    assert (Subject().count(several), Subject().many) == (3, "shapes")
    assert (Subject("red").one, Subject("red", "square").many) == ("red shape", "red squares")


@pytest.mark.parametrize(
    ("relation", "distance"), [("left of", 30), ("right of", -30), ("above", -5), ("below", 5)]
)
def test_offsets(relation, distance):
    first, second = scene("red circle 10 15", "blue circle 40 10").shapes
    assert offset(relation, first, second) == distance
