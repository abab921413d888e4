from collections import Counter, defaultdict
from functools import partial
from pathlib import Path
from random import Random

import pytest

from coca_video.data.benchmarks import shapes_pairs, shapes_questions, shapes_statements
from coca_video.data.benchmarks.shapes_balance import (
    balanced,
    blind_accuracy,
    groups_of_pairs,
    groups_of_scenes,
)
from coca_video.data.benchmarks.shapes_questions import Question
from coca_video.data.benchmarks.shapes_scenes import make_scene
from coca_video.data.manifest import ClipRecord

SCENES = [make_scene(Random(seed)) for seed in range(200)]
TASKS = [
    (shapes_questions.families(), groups_of_scenes),
    (shapes_statements.families(), groups_of_scenes),
    (shapes_pairs.families(), groups_of_pairs),
]


def examples(families, groups_of, number):
    random = Random(0)
    groups = balanced(families, number, partial(groups_of, scenes=SCENES, random=random), random)
    return groups, [example for group in groups for example in group]


@pytest.mark.parametrize(("families", "groups_of"), TASKS)
def test_every_text_has_its_answers_equally_often(families, groups_of):
    _, made = examples(families, groups_of, 600)
    answers = defaultdict(Counter)
    for example in made:
        assert example.text in example.question.texts
        answers[example.text][example.answer] += 1
        shown = tuple(SCENES[number] for number in example.scenes)
        assert example.question.answer(shown if len(shown) == 2 else shown[0]) == example.answer
    for example in made:
        assert set(answers[example.text]) == set(example.question.answers)
        assert len(set(answers[example.text].values())) == 1


@pytest.mark.parametrize(("families", "groups_of"), TASKS)
def test_types_have_equal_shares(families, groups_of):
    _, made = examples(families, groups_of, 600)
    shares = Counter(example.question.type for example in made)
    assert set(shares) == set(families) and 570 <= len(made) <= 600
    assert max(shares.values()) - min(shares.values()) <= 8


def test_groups_of_pairs_have_one_statement():
    groups, _ = examples(*TASKS[2], 400)
    assert {len(group) for group in groups} == {2, 4}
    for group in groups:
        assert len({example.text for example in group}) == 1
        assert len({example.scenes for example in group}) == len(group)
        assert all(left != right for left, right in (example.scenes for example in group))


def test_no_question_is_asked_of_a_scene_twice():
    question = Question("count", ("how many",), ("2", "3"), lambda scene: str(len(scene.shapes)))
    groups = list(groups_of_scenes(question, SCENES, Random(0)))
    used = Counter(example.scenes for group in groups for example in group)
    numbers = Counter(len(scene.shapes) for scene in SCENES)
    assert len(groups) == min(numbers[2], numbers[3]) and set(used.values()) == {1}


def test_what_has_but_one_answer_is_not_asked():
    never = Question("count", ("how many",), ("1", "2"), lambda shown: "1")
    assert not list(groups_of_scenes(never, SCENES, Random(0)))
    assert not list(groups_of_pairs(never, SCENES[:2], Random(0)))


def answered(*pairs: tuple[str, str]) -> list[ClipRecord]:
    return [ClipRecord(Path("a.png"), text, answers=[answer]) for text, answer in pairs]


def test_blind_accuracy():
    train = answered(("how many", "2"), ("how many", "2"), ("how many", "1"), ("is it", "yes"))
    test = answered(("how many", "2"), ("how many", "1"), ("is it", "yes"), ("new", "2"))
    assert blind_accuracy(train, test) == 0.75
    assert blind_accuracy(train, test, seen=lambda record: "") == 0.5
    for key in ("answer", "relation"):
        labelled = [ClipRecord(Path("a.png"), "a", {key: each}) for each in ("x", "x", "y")]
        assert blind_accuracy(labelled, labelled) == pytest.approx(2 / 3)
