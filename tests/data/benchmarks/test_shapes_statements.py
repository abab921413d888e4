import pytest
from shapes import by_text, scene

from coca_video.data.benchmarks.shapes_statements import families

STATEMENTS = by_text(families())
SHAPES = "red circle 10 10", "red circle 40 14", "blue circle 40 50"


@pytest.mark.parametrize(
    ("text", "in_the_open", "with_a_curtain"),
    [
        ("there is a red circle", "entailment", "entailment"),
        ("one of the shapes is a square", "contradiction", "neutral"),
        ("one of the shapes is blue", "entailment", "entailment"),
        ("there is no blue shape", "contradiction", "contradiction"),
        ("none of the shapes is green", "entailment", "neutral"),
        ("there are at least two red shapes", "entailment", "entailment"),
        ("there are more than two red shapes", "contradiction", "neutral"),
        ("there is more than one blue shape", "contradiction", "neutral"),
        ("there are exactly two red shapes", "entailment", "neutral"),
        ("there are exactly two circles", "contradiction", "contradiction"),
        ("there is only one blue shape", "entailment", "neutral"),
        ("there is exactly one square", "contradiction", "neutral"),
        ("there is a red circle above a blue circle", "entailment", "entailment"),
        ("there is a red circle to the right of a blue circle", None, None),
        ("there is a red shape below a blue shape", "contradiction", "neutral"),
        ("there is a circle left of a square", "contradiction", "neutral"),
        ("all shapes are circles", "entailment", "neutral"),
        ("every shape is a circle", "entailment", "neutral"),
        ("every shape is red", "contradiction", "contradiction"),
        ("there are more red shapes than blue shapes", "entailment", "neutral"),
        ("there are fewer circles than squares", "contradiction", "neutral"),
        ("there are fewer squares than triangles", "contradiction", "neutral"),
    ],
)
def test_verdicts(text, in_the_open, with_a_curtain):
    assert STATEMENTS[text].answer(scene(*SHAPES)) == in_the_open
    assert STATEMENTS[text].answer(scene(*SHAPES, curtain=True)) == with_a_curtain


def test_what_the_curtain_may_hide_is_what_it_leaves_open():
    """More shapes, where they might be hidden, change no verdict that was not neutral."""
    hidden = [f"{colour} {kind} 10 50" for colour in ("red", "green") for kind in ("circle", "square")]
    for text, statement in STATEMENTS.items():
        if (settled := statement.answer(scene(*SHAPES, curtain=True))) in (None, "neutral"):
            continue
        for each in hidden:
            assert statement.answer(scene(*SHAPES, each)) in (settled, None), text
