"""Captions of the shapes benchmark: what can be seen, in plain words."""

from collections import Counter
from collections.abc import Iterable
from itertools import permutations
from random import Random

from coca_video.data.benchmarks.shapes_scenes import (
    CLEAR,
    PARTIAL,
    RELATIONS,
    Scene,
    Subject,
    offset,
)

NUMBERS = ("no", "one", "two", "three", "four", "five")
BEGINNINGS = ("", "", "a picture of ", "this shows ")


def captions(scene: Scene, random: Random) -> list[str]:
    """Four to six different captions; the first names everything that can be seen.

    Two say what lies in which order: of all words those tell the most of a picture.
    """
    whole = _beginning(random) + _inventory(scene, random, by=("colour", "kind"))
    by = random.choice((("colour",), ("kind",)))
    partial = _beginning(random) + _inventory(scene, random, by=by)
    several = [whole, *_ordered(scene), *_related(scene, random), partial, _counted(scene, random)]
    return list(dict.fromkeys(several))


def several(subject: Subject, number: int) -> str:
    """ "a red circle", "two red circles"."""
    return f"a {subject.one}" if number == 1 else f"{NUMBERS[number]} {subject.many}"


def _beginning(random: Random) -> str:
    return random.choice(BEGINNINGS)


def _inventory(scene: Scene, random: Random, *, by: Iterable[str]) -> str:
    """All that can be seen, by these attributes of the shapes, in any order; the curtain is last."""
    subjects = [Subject(**{name: getattr(shape, name) for name in by}) for shape in scene.shapes]
    named = [several(subject, number) for subject, number in Counter(subjects).items()]
    random.shuffle(named)
    if scene.curtain:
        named.append("a grey curtain")
    return " and ".join([", ".join(named[:-1]), named[-1]]) if named[1:] else named[0]


def _ordered(scene: Scene) -> list[str]:
    """ "from left to right a red circle, a blue square"; of two shapes, by their centres."""
    across = sorted(scene.shapes, key=lambda shape: shape.x)
    down = sorted(scene.shapes, key=lambda shape: shape.y)
    return [
        f"from {where} " + ", ".join(f"a {shape.colour} {shape.kind}" for shape in shapes)
        for where, shapes in (("left to right", across), ("top to bottom", down))
    ]


def _related(scene: Scene, random: Random) -> list[str]:
    """One relation that is clear, or none if none is."""
    clear = [
        f"a {first.colour} {first.kind} {relation} a {second.colour} {second.kind}"
        for first, second in permutations(scene.shapes, 2)
        for relation in RELATIONS
        if offset(relation, first, second) >= CLEAR
    ]
    return [random.choice(clear)] if clear else []


def _counted(scene: Scene, random: Random) -> str:
    total = len(scene.shapes)
    seen = [subject for subject in PARTIAL if subject.count(scene)]
    subject = random.choice(seen)
    number = subject.count(scene)
    choices = [f"there are {total} shapes", f"{NUMBERS[total]} shapes, {_of_them(subject, number)}"]
    return random.choice(choices)


def _of_them(subject: Subject, number: int) -> str:
    """ "two of them red", "one of them a circle", "two of them circles"."""
    if subject.colour:
        said = subject.colour
    else:
        said = f"a {subject.kind}" if number == 1 else subject.many
    return f"{NUMBERS[number]} of them {said}"
