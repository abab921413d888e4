"""Small scenes of the shapes benchmark, made by hand."""

from coca_video.data.benchmarks.shapes_questions import Question
from coca_video.data.benchmarks.shapes_scenes import Curtain, Scene, Shape

CURTAIN = Curtain(left=2, top=40, width=16, height=22)


def scene(*shapes: str, curtain: bool = False) -> Scene:
    """Shapes as "red circle 10 50": colour, kind, x, y."""
    return Scene(tuple(map(_shape, shapes)), CURTAIN if curtain else None)


def by_text(families: dict[str, list[list[Question]]]) -> dict[str, Question]:
    """Every question by each of its wordings."""
    questions = [question for several in families.values() for family in several for question in family]
    return {text: question for question in questions for text in question.texts}


def _shape(text: str) -> Shape:
    colour, kind, x, y = text.split()
    return Shape(kind, colour, float(x), float(y), radius=7, angle=0)
