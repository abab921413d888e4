import json
from pathlib import Path

import pytest
import torch
from taught import CLASSES, all_tasks, inputs_for, with_head
from tiny import VOCAB_SIZE, coca

from coca_video.checkpoint import About, Checkpoint, load_checkpoint, write_weights
from coca_video.data.tokenizer import Tokenizer
from coca_video.data.transforms import Preprocessing
from coca_video.errors import InputError
from coca_video.models.coca import CoCa
from coca_video.tasks.catalogue import TASKS, task_of
from coca_video.tasks.entailment import Entailment
from coca_video.tasks.task import Task

TOKENIZER = Tokenizer.train(["a b c d e f g h " * 9] + [f"word{i}" for i in range(99)], vocab_size=VOCAB_SIZE)


def saved(folder: Path, model: CoCa, task: Task | None, **changes) -> Path:
    folder.mkdir()
    description = task.describe() | changes if task else None
    write_weights(
        folder, model.state_dict(), About(model.config, TOKENIZER, Preprocessing(), [], description)
    )
    return folder


@pytest.mark.parametrize("task", all_tasks(blind=True), ids=lambda task: task.name)
def test_a_checkpoint_makes_its_task_anew(tmp_path, task):
    model = with_head(coca(), task)
    loaded = load_checkpoint(saved(tmp_path / "a", model, task))
    assert loaded.model.task_head is None  # until someone asks for it
    found = task_of(loaded)
    assert found == task and type(found) is TASKS[task.name]
    inputs = inputs_for(task, model)
    assert torch.equal(found.predict(loaded.model, inputs), task.predict(model, inputs))
    assert not loaded.model.task_head.training


def test_what_it_says_is_json():
    for task in all_tasks():
        assert json.loads(json.dumps(task.describe())) == task.describe()


class Own(Entailment):
    name = "own"


def test_a_task_of_one_s_own(tmp_path):
    task = Own(classes=CLASSES)
    loaded = load_checkpoint(saved(tmp_path / "a", with_head(coca(), task), task))
    assert type(task_of(loaded, [Own])) is Own
    assert refusal(loaded) == "its task is 'own'; known are " + ", ".join(TASKS)


def refusal(checkpoint: Checkpoint) -> str:
    with pytest.raises(InputError) as caught:
        task_of(checkpoint)
    message = str(caught.value)
    assert message.startswith(f"{checkpoint.path}: ") and "\n" not in message
    return message.removeprefix(f"{checkpoint.path}: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, "its task entailment has an unknown setting 'colour'"),
        ({"label_smoothing": 2}, "its task entailment: label_smoothing must be in [0, 1), got 2"),
        ({"classes": 5}, "its task entailment: "),
        ({"classes": ["a", "b"]}, "its task's weights do not fit: "),
    ],
)
def test_a_task_that_cannot_be_made(tmp_path, changes, message):
    task = Entailment(classes=CLASSES)
    path = saved(tmp_path / "a", with_head(coca(), task), task, **changes)
    assert refusal(load_checkpoint(path)).startswith(message)


def test_a_checkpoint_without_a_task(tmp_path):
    loaded = load_checkpoint(saved(tmp_path / "a", coca(), None))
    assert loaded.task is None and not loaded.task_weights
    assert refusal(loaded) == "has learned no task; it can do what CoCa does without a head"


@pytest.mark.parametrize("task", [None, [], {"classes": ["a", "b"]}])
def test_a_config_that_says_nonsense(tmp_path, task):
    path = saved(tmp_path / "a", coca(), None)
    config = json.loads((path / "config.json").read_text()) | {"task": task}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=f"{path / 'config.json'}: not a coca_video checkpoint's config"):
        load_checkpoint(path)
