"""What a run that teaches a task has more: classes from the data, questions on samples, a head."""

from collections.abc import Iterable, Iterator
from itertools import chain

from coca_video.checkpoint import TASK_HEAD, Checkpoint
from coca_video.cli import load_config
from coca_video.config import TrainConfig
from coca_video.data.captions import Caption, Record
from coca_video.data.sources import Source
from coca_video.errors import InputError
from coca_video.models.adaptors import Adaptor
from coca_video.models.coca import CoCa
from coca_video.ops.distributed import by_first
from coca_video.tasks.catalogue import TASKS, attach
from coca_video.tasks.task import Task, asking


def load_train_config(overrides: list[str], own: Iterable[type[Task]] = ()) -> TrainConfig:
    """configs/train.yaml with overrides; own: tasks beside the catalogue's that `task=NAME` may name."""
    tasks = TASKS | {each.name: each for each in own}
    return load_config(TrainConfig, "train", overrides, options={"task": tasks})


def begin_task(config: TrainConfig, sources: list[Source]) -> tuple[Task, Caption]:
    """The settings' task once it has seen the records, and what it asks of one of them.

    From now on it says what the sources' samples are read with.
    Raises InputError for settings that would have no effect, and for samples of which it can ask nothing.
    """
    _check(config)
    task = by_first(lambda: _prepared(config, sources))
    for source, each in zip(sources, config.data.sources):
        try:
            source.captions = asking(task, _records(source))
        except InputError as error:
            raise InputError(f"{each.path}: {error}") from error
    return task, sources[0].captions.like


def give_head(model: CoCa, task: Task, init: Checkpoint | None, *, goes_on: bool) -> str:
    """New, or that of a start which has learned the same; says which.

    goes_on: the start is of the same run. Raises InputError if its data then had other classes.
    """
    before, now = init and init.task, task.describe()
    if before and all(before.get(key) == now.get(key) for key in ("name", "classes")):
        attach(init, task)
        return f"the start's head for the task {task.name}"
    if goes_on:
        found = "the classes in the data are not those that it began with"
        raise InputError(f"{init.path}: {found}; set output= to another folder")
    model.task_head = task.head(model.config)
    if init:
        init.new_weights += [f"{TASK_HEAD}{name}" for name, _ in model.task_head.named_parameters()]
    left_out = f"; that of the start, of {before['name']}, is left out" if before else ""
    return f"a new head for the task {task.name}{left_out}"


def _check(config: TrainConfig) -> None:
    task, loss = config.task, config.loop.loss
    if task.num_pictures > 1 and config.model.temporal.adaptor is Adaptor.joint:
        raise InputError("model.temporal.adaptor=joint would encode both pictures of a pair together")
    if loss != type(loss)():
        raise InputError(f"loop.loss: would have no effect beside task={task.name}; see task.* for its own")
    if task.blind and config.data.token_cache is not None:
        raise InputError("data.token_cache: would have no effect: with task.blind=true no picture is seen")
    for i, source in enumerate(config.data.sources):
        if source.prompts is not None:
            raise InputError(f"data.sources[{i}].prompts: would have no effect beside task={task.name}")
        if task.num_pictures > 1 and source.num_frames > 1:
            found = f"must be 1 with task={task.name}, got {source.num_frames}"
            raise InputError(f"data.sources[{i}].num_frames: {found}: a pair is of pictures")


def _prepared(config: TrainConfig, sources: list[Source]) -> Task:
    try:
        return config.task.prepared(chain.from_iterable(map(_records, sources)))
    except InputError as error:
        paths = ", ".join(source.path for source in sources)
        raise InputError(f"{paths}: {error}") from error


def _records(source: Source) -> Iterator[Record]:
    return (record for _, record in source.readable())
