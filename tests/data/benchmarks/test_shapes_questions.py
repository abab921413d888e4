import pytest
from shapes import by_text, scene

from coca_video.data.benchmarks.shapes_questions import families

QUESTIONS = by_text(families())
SEVERAL = scene("red circle 10 10", "blue square 40 14", "blue triangle 40 50", "yellow triangle 12 50")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("how many triangles can be seen", "2"),
        ("how many blue shapes can you see", "2"),
        ("what number of green squares is visible", "0"),
        ("how many shapes can be seen", "4"),
        ("can you see a blue triangle", "yes"),
        ("is a red triangle visible", "no"),
        ("is there a green shape to be seen", "no"),
        ("is the circle left of the square", "yes"),
        ("is the circle to the right of the square", "no"),
        ("is the square left of the circle", "no"),
        ("is the red shape higher than the yellow shape", "yes"),
        ("is the yellow shape above the red shape", "no"),
        ("is the yellow triangle lower than the blue square", "yes"),
        ("what color is the square", "blue"),
        ("what is the shape of the yellow one", "triangle"),
        ("are there more triangles than squares to be seen", "yes"),
        ("can you see more squares than circles", "no"),
        ("can you see fewer red shapes than blue shapes", "yes"),
        ("are there fewer circles than squares to be seen", "no"),
    ],
)
def test_answers(text, answer):
    assert answer in QUESTIONS[text].answers
    assert QUESTIONS[text].answer(SEVERAL) == answer


@pytest.mark.parametrize(
    "text",
    [
        "is the circle above the square",  # four units: not clear
        "is the triangle below the square",  # two triangles
        "is the green shape left of the red shape",  # none
        "what color is the triangle",
        "what shape is the blue one",
        "what shape is the green one",
    ],
)
def test_what_is_not_asked(text):
    assert QUESTIONS[text].answer(SEVERAL) is None


def test_what_no_shape_is_compared_with():
    assert QUESTIONS["can you see more red shapes than blue shapes"].answer(scene("green circle 9 9")) is None


def test_a_curtain_changes_no_answer():
    shapes = "red circle 10 10", "blue square 40 14"
    answers = [
        {text: question.answer(scene(*shapes, curtain=curtain)) for text, question in QUESTIONS.items()}
        for curtain in (False, True)
    ]
    assert answers[0] == answers[1]


def test_types_of_answers():
    kinds = {(question.type, question.answer_type) for question in QUESTIONS.values()}
    assert kinds == {
        ("count", "number"),
        ("relation", "yes/no"),
        ("existence", "yes/no"),
        ("attribute", "other"),
        ("comparison", "yes/no"),
    }
