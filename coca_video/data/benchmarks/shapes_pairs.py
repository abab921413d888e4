"""Statements of the shapes benchmark about what can be seen in two pictures, left and right."""

from collections.abc import Callable, Iterable

from coca_video.data.benchmarks.nlvr2 import ANSWERS
from coca_video.data.benchmarks.shapes_questions import Question
from coca_video.data.benchmarks.shapes_scenes import ANY, PARTIAL, SUBJECTS, Scene, Subject

Pair = tuple[Scene, Scene]
SIDES = ("left", "right")
TOTALS = (1, 2, 3, 4, 5)
TOTALS_OF_ALL = (5, 6, 7, 8, 9)


def families() -> dict[str, list[list[Question[Pair]]]]:
    """Statements by type; each type has families that are made equally often."""
    return {
        "more": [_of_each_side(_more, (ANY, *PARTIAL))],
        "both": [list(map(_both, SUBJECTS)), list(map(_neither, SUBJECTS))],
        "one": [list(map(_exactly_one, SUBJECTS)), _of_each_side(_only, SUBJECTS)],
        "total": [_totals()],
        "same": [list(map(_same, (ANY, *PARTIAL)))],
    }


def _statement(
    type: str, texts: tuple[str, ...], holds: Callable[[int, int], bool], subject: Subject
) -> Question[Pair]:
    """holds: of the numbers of the subject's shapes, left and right."""

    def judge(pair: Pair) -> str:
        left, right = pair
        return ANSWERS[not holds(subject.count(left), subject.count(right))]

    return Question(type, texts, ANSWERS, judge)


def _of_each_side(
    make: Callable[[Subject, int], Question[Pair]], subjects: Iterable[Subject]
) -> list[Question[Pair]]:
    return [make(subject, side) for subject in subjects for side in range(len(SIDES))]


def _more(subject: Subject, side: int) -> Question[Pair]:
    this, other = SIDES[side], SIDES[1 - side]
    texts = (
        f"the {this} picture shows more {subject.many} than the {other} picture",
        f"there are fewer {subject.many} in the {other} picture than in the {this} picture",
    )
    return _statement("more", texts, lambda *numbers: numbers[side] > numbers[1 - side], subject)


def _both(subject: Subject) -> Question[Pair]:
    texts = (f"both pictures show a {subject.one}", f"a {subject.one} is in each of the pictures")
    return _statement("both", texts, lambda left, right: left > 0 and right > 0, subject)


def _neither(subject: Subject) -> Question[Pair]:
    texts = (f"neither picture shows a {subject.one}", f"no picture shows a {subject.one}")
    return _statement("both", texts, lambda left, right: left == right == 0, subject)


def _exactly_one(subject: Subject) -> Question[Pair]:
    texts = (f"exactly one picture shows a {subject.one}", f"only one of the pictures shows a {subject.one}")
    return _statement("one", texts, lambda left, right: (left > 0) != (right > 0), subject)


def _only(subject: Subject, side: int) -> Question[Pair]:
    texts = (f"only the {SIDES[side]} picture shows a {subject.one}",)
    return _statement("one", texts, lambda *numbers: numbers[side] > 0 == numbers[1 - side], subject)


def _totals() -> list[Question[Pair]]:
    counted = [(subject, number) for subject in PARTIAL for number in TOTALS]
    return [_total(*each) for each in counted + [(ANY, number) for number in TOTALS_OF_ALL]]


def _total(subject: Subject, number: int) -> Question[Pair]:
    said = f"is 1 {subject.one}" if number == 1 else f"are {number} {subject.many}"
    texts = (f"there {said} in total", f"in both pictures together there {said}")
    return _statement("total", texts, lambda left, right: left + right == number, subject)


def _same(subject: Subject) -> Question[Pair]:
    texts = (
        f"there is the same number of {subject.many} in both pictures",
        f"the left picture shows as many {subject.many} as the right picture",
    )
    return _statement("same", texts, lambda left, right: left == right, subject)
