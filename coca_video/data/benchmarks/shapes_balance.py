"""Which question is asked of which scene, so that no text says anything about its answer.

A group is one wording with as many scenes for each answer. Examples are whole groups, so that each text has
each answer equally often, in every split.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from coca_video.data.benchmarks.shapes_questions import Question
from coca_video.data.benchmarks.shapes_scenes import Scene
from coca_video.data.manifest import ClipRecord

MAX_TRIES = 3000  # pairs of pictures for one group


@dataclass(frozen=True)
class Example:
    """What is asked of which scenes (their numbers: one, or left and right)."""

    question: Question
    text: str
    answer: str
    scenes: tuple[int, ...]


Group = list[Example]


def groups_of_scenes(question: Question[Scene], scenes: Sequence[Scene], random: Random) -> Iterator[Group]:
    """One scene for each answer, as long as there are any; no scene twice."""
    found: dict[str, list[int]] = {answer: [] for answer in question.answers}
    start = random.randrange(len(scenes))
    for place in range(len(scenes)):
        number = (start + place) % len(scenes)
        answer = question.answer(scenes[number])
        if answer not in found:
            continue
        found[answer].append(number)
        if all(found.values()):
            text = random.choice(question.texts)
            yield [Example(question, text, answer, (numbers.pop(),)) for answer, numbers in found.items()]


def groups_of_pairs(
    question: Question[tuple[Scene, Scene]], scenes: Sequence[Scene], random: Random
) -> Iterator[Group]:
    """One or two pairs of pictures for each answer; ends when none are found."""
    while True:
        each = random.choice((1, 2))
        found: dict[str, list[tuple[int, ...]]] = {answer: [] for answer in question.answers}
        for _ in range(MAX_TRIES):
            pair = tuple(random.sample(range(len(scenes)), 2))
            pairs = found[question.answer(tuple(scenes[number] for number in pair))]
            if len(pairs) < each and pair not in pairs:
                pairs.append(pair)
            if all(len(pairs) == each for pairs in found.values()):
                break
        else:
            return
        text = random.choice(question.texts)
        yield [Example(question, text, answer, pair) for answer in found for pair in found[answer]]


def balanced(
    families: dict[str, list[list[Question]]],
    number: int,
    groups_of: Callable[[Question], Iterator[Group]],
    random: Random,
) -> list[Group]:
    """Groups of `number` examples in all, or a few less; equal shares of types, then families."""
    made = []
    for place, several in enumerate(families.values()):
        share = _share(number, place, len(families))
        for second_place, family in enumerate(several):
            made += _in_turn(family, _share(share, second_place, len(several)), groups_of, random)
    random.shuffle(made)
    return made


def blind_accuracy(
    train: Sequence[ClipRecord],
    test: Sequence[ClipRecord],
    *,
    seen: Callable[[ClipRecord], Hashable] = lambda record: record.text,
) -> float:
    """The share that is right of who sees no picture and gives each text its most frequent answer in `train`.

    seen: what is known of an example. What never was in `train` gets the most frequent answer of all.
    """
    by_seen: dict[Hashable, Counter[str]] = defaultdict(Counter)
    for record in train:
        by_seen[seen(record)][answer_of(record)] += 1
    of_all = sum(by_seen.values(), Counter())
    guesses = (by_seen.get(seen(record), of_all).most_common(1)[0][0] for record in test)
    return sum(guess == answer_of(record) for guess, record in zip(guesses, test, strict=True)) / len(test)


def answer_of(record: ClipRecord) -> str:
    return record.answers[0] if record.answers else record.labels.get("answer") or record.labels["relation"]


def _share(number: int, place: int, num_shares: int) -> int:
    """Shares of a number that add up to it."""
    return number * (place + 1) // num_shares - number * place // num_shares


def _in_turn(
    family: Sequence[Question],
    number: int,
    groups_of: Callable[[Question], Iterator[Group]],
    random: Random,
) -> list[Group]:
    """A group of each question in turn, until there are `number` examples or no group fits any more."""
    going = [groups_of(question) for question in random.sample(family, len(family))]
    made: list[Group] = []
    while going:
        goes_on = []
        for groups in going:
            group = next(groups, None)
            if group is None or len(group) > number:
                continue
            number -= len(group)
            made.append(group)
            goes_on.append(groups)
        going = goes_on
    return made
