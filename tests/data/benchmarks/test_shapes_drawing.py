import io
from random import Random

import pytest
from PIL import Image
from shapes import scene

from coca_video.data.benchmarks.shapes_drawing import JITTER, PALEST, RGB, as_png, draw
from coca_video.data.benchmarks.shapes_scenes import COLOURS, make_scene


def is_near(pixel: tuple[int, ...], colour: str) -> bool:
    return all(abs(one - other) <= JITTER for one, other in zip(pixel, RGB[colour], strict=True))


def test_each_shape_has_its_colour_where_it_lies():
    for seed in range(50):
        made = make_scene(Random(seed))
        picture = draw(made, Random(seed))
        for shape in made.shapes:
            pixel = picture.getpixel((int(shape.x), int(shape.y)))
            assert [colour for colour in COLOURS if is_near(pixel, colour)] == [shape.colour]


@pytest.mark.parametrize(
    ("kind", "filled"),
    [
        ("circle", {"left", "right", "top", "bottom"}),
        ("square", {"left", "right", "top", "bottom", "low corner", "high corner"}),
        ("triangle", {"low corner", "bottom", "top"}),
    ],
)
def test_outlines(kind, filled):
    picture = draw(scene(f"blue {kind} 32 32"), Random(0))
    places = {
        "left": (28, 31),
        "right": (36, 31),
        "top": (32, 28),
        "bottom": (32, 34),
        "low corner": (28, 34),
        "high corner": (28, 28),
    }
    if kind == "circle":
        places |= {"low corner": (27, 36), "high corner": (27, 27)}
    elif kind == "triangle":
        places |= {"left": (27, 29), "right": (37, 29)}
    assert {name for name, place in places.items() if is_near(picture.getpixel(place), "blue")} == filled


def test_the_ground_is_pale_and_the_curtain_grey():
    picture = draw(scene("red circle 50 10", curtain=True), Random(0))
    assert min(picture.getpixel((20, 20))) >= PALEST
    red, green, blue = picture.getpixel((3, 50))
    assert red == green == blue and 100 < red < 180
    assert min(draw(scene("red circle 50 10"), Random(0)).getpixel((3, 50))) >= PALEST


def test_sizes_and_files():
    several = scene("red circle 16 48")
    assert is_near(draw(several, Random(0), size=128).getpixel((32, 96)), "red")
    png = as_png(draw(several, Random(0)))
    assert Image.open(io.BytesIO(png)).size == (64, 64)
    assert png == as_png(draw(several, Random(0))) != as_png(draw(several, Random(1)))
