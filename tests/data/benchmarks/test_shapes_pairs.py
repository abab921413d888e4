import pytest
from shapes import by_text, scene

from coca_video.data.benchmarks.shapes_pairs import families

STATEMENTS = by_text(families())
LEFT = scene("red circle 10 10", "red square 40 14", "green circle 40 50")
RIGHT = scene("red circle 10 10", "blue square 40 14")


@pytest.mark.parametrize(
    ("text", "straight", "swapped"),
    [
        ("the left picture shows more red shapes than the right picture", "True", "False"),
        ("the right picture shows more squares than the left picture", "False", "False"),
        ("there are fewer shapes in the right picture than in the left picture", "True", "False"),
        ("both pictures show a red circle", "True", "True"),
        ("a red square is in each of the pictures", "False", "False"),
        ("neither picture shows a triangle", "True", "True"),
        ("no picture shows a blue square", "False", "False"),
        ("exactly one picture shows a blue square", "True", "True"),
        ("exactly one picture shows a red circle", "False", "False"),
        ("only one of the pictures shows a triangle", "False", "False"),
        ("only the right picture shows a blue shape", "True", "False"),
        ("only the left picture shows a circle", "False", "False"),
        ("there are 3 circles in total", "True", "True"),
        ("there is 1 blue shape in total", "True", "True"),
        ("in both pictures together there are 5 shapes", "True", "True"),
        ("there are 3 squares in total", "False", "False"),
        ("there is the same number of squares in both pictures", "True", "True"),
        ("the left picture shows as many circles as the right picture", "False", "False"),
    ],
)
def test_answers(text, straight, swapped):
    assert STATEMENTS[text].answer((LEFT, RIGHT)) == straight
    assert STATEMENTS[text].answer((RIGHT, LEFT)) == swapped
