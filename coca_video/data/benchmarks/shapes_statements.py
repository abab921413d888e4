"""Statements of the shapes benchmark about one picture: entailed, contradicted or neither.

A curtain may hide any shapes. What is seen decides what it can; what the curtain could change is neutral.
Neutral is therefore only found with a curtain: who knows the text and whether there is one is right two times
in three, who knows the text alone one time in three.
"""

from coca_video.data.benchmarks.shapes_captions import NUMBERS
from coca_video.data.benchmarks.shapes_questions import COMPARED, SAID, Question, of_two
from coca_video.data.benchmarks.shapes_scenes import (
    CLEAR,
    COLOURS,
    KINDS,
    OF_BOTH,
    OF_COLOUR,
    OF_KIND,
    PARTIAL,
    RELATIONS,
    SUBJECTS,
    Scene,
    Subject,
    offset,
)
from coca_video.data.benchmarks.snli_ve import RELATIONS as VERDICTS

ENTAILMENT, NEUTRAL, CONTRADICTION = VERDICTS


def families() -> dict[str, list[list[Question[Scene]]]]:
    """Statements by type; each type has families that are made equally often."""
    return {
        "existence": [[_existence(subject) for subject in SUBJECTS]],
        "absence": [[_absence(subject) for subject in SUBJECTS]],
        "at least": [[_at_least(subject, number) for subject in PARTIAL for number in (2, 3)]],
        "exactly": [[_exactly(subject, number) for subject in PARTIAL for number in (1, 2)]],
        "relation": [of_two(_relation, subjects, RELATIONS) for subjects in (OF_KIND, OF_COLOUR, OF_BOTH)],
        "universal": [[_all_of_colour(colour) for colour in COLOURS], [_all_of_kind(kind) for kind in KINDS]],
        "comparison": [of_two(_comparison, subjects, COMPARED) for subjects in (OF_KIND, OF_COLOUR)],
    }


def _verdict(scene: Scene, *, is_so: bool, is_settled: bool) -> str:
    """is_so: of what is seen; is_settled: nothing behind a curtain could change it."""
    if scene.curtain and not is_settled:
        return NEUTRAL
    return ENTAILMENT if is_so else CONTRADICTION


def _existence(subject: Subject) -> Question[Scene]:
    def judge(scene: Scene) -> str:
        is_seen = subject.count(scene) > 0
        return _verdict(scene, is_so=is_seen, is_settled=is_seen)

    texts = (f"there is a {subject.one}", f"one of the shapes is {_predicate(subject)}")
    return Question("existence", texts, VERDICTS, judge)


def _absence(subject: Subject) -> Question[Scene]:
    def judge(scene: Scene) -> str:
        is_seen = subject.count(scene) > 0
        return _verdict(scene, is_so=not is_seen, is_settled=is_seen)

    texts = (f"there is no {subject.one}", f"none of the shapes is {_predicate(subject)}")
    return Question("absence", texts, VERDICTS, judge)


def _predicate(subject: Subject) -> str:
    return f"a {subject.one}" if subject.kind else subject.colour


def _at_least(subject: Subject, number: int) -> Question[Scene]:
    def judge(scene: Scene) -> str:
        is_reached = subject.count(scene) >= number
        return _verdict(scene, is_so=is_reached, is_settled=is_reached)

    if number == 2:
        more = f"there is more than one {subject.one}"
    else:
        more = f"there are more than {NUMBERS[number - 1]} {subject.many}"
    texts = (f"there are at least {NUMBERS[number]} {subject.many}", more)
    return Question("at least", texts, VERDICTS, judge)


def _exactly(subject: Subject, number: int) -> Question[Scene]:
    def judge(scene: Scene) -> str:
        seen = subject.count(scene)
        return _verdict(scene, is_so=seen == number, is_settled=seen > number)

    if number == 1:
        texts = (f"there is exactly one {subject.one}", f"there is only one {subject.one}")
    else:
        counted = f"{NUMBERS[number]} {subject.many}"
        texts = (f"there are exactly {counted}", f"there are only {counted}")
    return Question("exactly", texts, VERDICTS, judge)


def _relation(first: Subject, second: Subject, relation: str) -> Question[Scene]:
    """Of any two shapes; not said where two are neither clearly so nor clearly not."""

    def judge(scene: Scene) -> str | None:
        distances = (
            offset(relation, one, other) for one in first.among(scene) for other in second.among(scene)
        )
        farthest = max(distances, default=-CLEAR)  # not so without such shapes
        if abs(farthest) < CLEAR:
            return None
        is_so = farthest > 0
        return _verdict(scene, is_so=is_so, is_settled=is_so)

    texts = tuple(f"there is a {first.one} {said} a {second.one}" for said in SAID[relation])
    return Question("relation", texts, VERDICTS, judge)


def _all_of_colour(colour: str) -> Question[Scene]:
    return _universal(Subject(colour=colour), (f"all shapes are {colour}", f"every shape is {colour}"))


def _all_of_kind(kind: str) -> Question[Scene]:
    return _universal(Subject(kind=kind), (f"all shapes are {kind}s", f"every shape is a {kind}"))


def _universal(subject: Subject, texts: tuple[str, ...]) -> Question[Scene]:
    def judge(scene: Scene) -> str:
        is_so = subject.count(scene) == len(scene.shapes)
        return _verdict(scene, is_so=is_so, is_settled=not is_so)

    return Question("universal", texts, VERDICTS, judge)


def _comparison(first: Subject, second: Subject, word: str) -> Question[Scene]:
    def judge(scene: Scene) -> str:
        one, other = first.count(scene), second.count(scene)
        return _verdict(scene, is_so=one > other if word == "more" else one < other, is_settled=False)

    texts = (f"there are {word} {first.many} than {second.many}",)
    return Question("comparison", texts, VERDICTS, judge)
