import re
from random import Random

from shapes import scene

from coca_video.data.benchmarks.shapes_captions import NUMBERS, captions
from coca_video.data.benchmarks.shapes_scenes import make_scene

BEGINNING = r"^(a picture of |this shows )?"


def all_captions(made, *, seeds: int = 200) -> set[str]:
    every = (text for seed in range(seeds) for text in captions(made, Random(seed)))
    return {re.sub(BEGINNING, "", text) for text in every}


def test_everything_that_is_ever_said_of_a_scene():
    made = scene("red circle 10 10", "red circle 14 30", "blue square 50 50", curtain=True)
    by_kind_and_colour = {
        *("two red circles, a blue square", "a blue square, two red circles"),
        *("two red shapes, a blue shape", "a blue shape, two red shapes"),
        *("two circles, a square", "a square, two circles"),
    }
    assert all_captions(made) == {
        *(f"{each} and a grey curtain" for each in by_kind_and_colour),
        *("a red circle left of a blue square", "a blue square right of a red circle"),
        *("a red circle above a blue square", "a blue square below a red circle"),
        *("a red circle above a red circle", "a red circle below a red circle"),
        *("there are 3 shapes", "three shapes, two of them red", "three shapes, one of them blue"),
        *("three shapes, two of them circles", "three shapes, one of them a square"),
        "from left to right a red circle, a red circle, a blue square",
        "from top to bottom a red circle, a red circle, a blue square",
    }


def test_the_first_names_every_shape():
    for seed in range(200):
        made = make_scene(Random(seed))
        first, *others = captions(made, Random(seed))
        assert len({first, *others}) == 1 + len(others) and len(others) in (4, 5)
        named = re.sub(BEGINNING, "", first).replace(" and a grey curtain", "")
        words = [part.split()[0] for part in re.split(", | and ", named)]
        assert sum(1 if word == "a" else NUMBERS.index(word) for word in words) == len(made.shapes)
        assert ("grey curtain" in first) == (made.curtain is not None)


def test_no_relation_where_none_is_clear():
    made = scene("red circle 20 20", "blue circle 31 31")
    assert not any(" of a " in text or " above " in text for text in all_captions(made))
