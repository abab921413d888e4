"""All tasks by name, and how a checkpoint's is made anew."""

from collections.abc import Iterable
from dataclasses import fields

from coca_video.checkpoint import Checkpoint
from coca_video.errors import InputError
from coca_video.tasks.classification import Classification
from coca_video.tasks.entailment import Entailment
from coca_video.tasks.picture_pairs import PicturePairs
from coca_video.tasks.question_answering import QuestionAnswering
from coca_video.tasks.task import Task

TASKS: dict[str, type[Task]] = {
    each.name: each for each in (Classification, QuestionAnswering, Entailment, PicturePairs)
}


def task_of(checkpoint: Checkpoint, own: Iterable[type[Task]] = ()) -> Task:
    """The task that a checkpoint has learned; its head becomes the model's (`task_head`).

    own: tasks that are not in the catalogue. Raises InputError, naming the checkpoint, where it has learned
    none, or one that nobody here knows.
    """
    if checkpoint.task is None:
        raise InputError(f"{checkpoint.path}: has learned no task; it can do what CoCa does without a head")
    known = TASKS | {each.name: each for each in own}
    settings = dict(checkpoint.task)
    name = settings.pop("name")
    if name not in known:
        raise InputError(f"{checkpoint.path}: its task is {name!r}; known are {', '.join(known)}")
    allowed = {each.name for each in fields(known[name])}
    if unknown := settings.keys() - allowed:
        raise InputError(f"{checkpoint.path}: its task {name} has an unknown setting {min(unknown)!r}")
    try:
        task = known[name](**settings)
    except (TypeError, ValueError) as error:
        raise InputError(f"{checkpoint.path}: its task {name}: {error}") from error
    attach(checkpoint, task)
    return task


def attach(checkpoint: Checkpoint, task: Task) -> None:
    """Gives the model the task's head, with the checkpoint's weights of it."""
    model = checkpoint.model
    head = task.head(model.config)
    try:
        head.load_state_dict(checkpoint.task_weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{checkpoint.path}: its task's weights do not fit: {reason}") from error
    model.task_head = head.to(next(model.parameters()).device).train(model.training)
