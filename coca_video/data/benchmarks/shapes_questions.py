"""Questions of the shapes benchmark, about what can be seen in one picture."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Generic, TypeVar

from coca_video.data.benchmarks.shapes_scenes import (
    ANY,
    CLEAR,
    COLOURS,
    KINDS,
    MAX_SHAPES,
    MIN_SHAPES,
    OF_BOTH,
    OF_COLOUR,
    OF_KIND,
    RELATIONS,
    SUBJECTS,
    Scene,
    Shape,
    Subject,
    offset,
)

Asked = TypeVar("Asked")  # what it is asked of: a scene, or two
YES_NO = ("yes", "no")
COUNTS = ("0", "1", "2", "3")
COMPARED = ("more", "fewer")
SAID = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "higher than"),
    "below": ("below", "lower than"),
}


@dataclass(frozen=True)
class Question(Generic[Asked]):
    """A question, or a statement to be judged: each wording has each answer equally often."""

    type: str
    texts: tuple[str, ...]  # wordings
    answers: tuple[str, ...]  # all that there are
    answer: Callable[[Asked], str | None]  # None or another answer: not to be asked of this

    @property
    def answer_type(self) -> str:
        """As VQA v2 sorts answers."""
        if self.answers == YES_NO:
            return "yes/no"
        return "number" if self.answers[0].isdigit() else "other"


def families() -> dict[str, list[list[Question[Scene]]]]:
    """Questions by type; each type has families that are asked equally often."""
    return {
        "count": [[_count(subject) for subject in (ANY, *SUBJECTS)]],
        "relation": [of_two(_relation, subjects, RELATIONS) for subjects in (OF_KIND, OF_COLOUR, OF_BOTH)],
        "existence": [[_existence(subject) for subject in SUBJECTS]],
        "attribute": [
            [_colour_of(subject) for subject in OF_KIND],
            [_kind_of(subject) for subject in OF_COLOUR],
        ],
        "comparison": [of_two(_comparison, subjects, COMPARED) for subjects in (OF_KIND, OF_COLOUR)],
    }


def of_two(
    make: Callable[[Subject, Subject, str], Question[Scene]],
    subjects: Sequence[Subject],
    words: Iterable[str],
) -> list[Question[Scene]]:
    """One for each word and any two of the subjects, in both orders."""
    return [make(*two, word) for two in permutations(subjects, 2) for word in words]


def yes_no(is_so: bool) -> str:
    return YES_NO[not is_so]


def _count(subject: Subject) -> Question[Scene]:
    answers = tuple(map(str, range(MIN_SHAPES, MAX_SHAPES + 1))) if subject == ANY else COUNTS
    texts = (
        f"how many {subject.many} can be seen",
        f"how many {subject.many} can you see",
        f"what number of {subject.many} is visible",
    )
    return Question("count", texts, answers, lambda scene: str(subject.count(scene)))


def _existence(subject: Subject) -> Question[Scene]:
    texts = (
        f"can you see a {subject.one}",
        f"is a {subject.one} visible",
        f"is there a {subject.one} to be seen",
    )
    return Question("existence", texts, YES_NO, lambda scene: yes_no(subject.count(scene) > 0))


def _relation(first: Subject, second: Subject, relation: str) -> Question[Scene]:
    """Of two shapes that are the only ones of their names, and clearly apart along the axis."""

    def answer(scene: Scene) -> str | None:
        ones, others = first.among(scene), second.among(scene)
        if len(ones) != 1 or len(others) != 1:
            return None
        distance = offset(relation, ones[0], others[0])
        return yes_no(distance > 0) if abs(distance) >= CLEAR else None

    texts = tuple(f"is the {first.one} {said} the {second.one}" for said in SAID[relation])
    return Question("relation", texts, YES_NO, answer)


def _colour_of(subject: Subject) -> Question[Scene]:
    texts = (f"what color is the {subject.one}", f"what is the color of the {subject.one}")
    return _attribute(subject, lambda shape: shape.colour, texts, COLOURS)


def _kind_of(subject: Subject) -> Question[Scene]:
    texts = (f"what shape is the {subject.colour} one", f"what is the shape of the {subject.colour} one")
    return _attribute(subject, lambda shape: shape.kind, texts, KINDS)


def _attribute(
    subject: Subject, look: Callable[[Shape], str], texts: tuple[str, ...], answers: tuple[str, ...]
) -> Question[Scene]:
    """Of a shape that is the only one of its name."""

    def answer(scene: Scene) -> str | None:
        found = subject.among(scene)
        return look(found[0]) if len(found) == 1 else None

    return Question("attribute", texts, answers, answer)


def _comparison(first: Subject, second: Subject, word: str) -> Question[Scene]:
    def answer(scene: Scene) -> str | None:
        one, other = first.count(scene), second.count(scene)
        if not one and not other:
            return None
        return yes_no(one > other if word == "more" else one < other)

    said = f"{word} {first.many} than {second.many}"
    texts = (f"are there {said} to be seen", f"can you see {said}")
    return Question("comparison", texts, YES_NO, answer)
