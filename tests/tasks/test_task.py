import random
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from taught import CLASSES, all_tasks, batch_for, inputs_for, like, record, with_head
from tiny import POOLERS, coca, name

from coca_video.data.shard_records import ShardRecord
from coca_video.errors import InputError
from coca_video.tasks.classification import Classification
from coca_video.tasks.entailment import Entailment
from coca_video.tasks.picture_pairs import PicturePairs
from coca_video.tasks.question_answering import QuestionAnswering
from coca_video.tasks.task import asking, check_pictures
from coca_video.training.optim import OptimizerConfig, build_optimizer

IN_SHARD = ShardRecord("key", b"", "a text", {"class": "dog"})


@pytest.mark.parametrize("task", all_tasks(), ids=lambda task: task.name)
@pytest.mark.parametrize("changes", POOLERS, ids=name)
def test_a_blind_task_sees_no_picture(changes, task):
    """Not even through how many frames there are."""
    blind = type(task)(**vars_of(task) | {"blind": True})
    model = with_head(coca(**changes), blind)
    batch = batch_for(blind)
    logits = blind.predict(model, inputs_for(blind, model, batch))
    batch.frames = 255 - batch.frames
    torch.testing.assert_close(blind.predict(model, inputs_for(blind, model, batch)), logits)
    seeing = with_head(coca(**changes), task)
    assert not torch.allclose(task.predict(seeing, inputs_for(task, seeing, batch)), logits)


def vars_of(task) -> dict:
    return {key: value for key, value in task.describe().items() if key != "name"}


@pytest.mark.parametrize("task", all_tasks(), ids=lambda task: task.name)
def test_learns_four_samples(task):
    """All of them become right within a hundred steps."""
    model = coca().train()
    torch.manual_seed(0)
    model.task_head = task.head(model.config)
    batch, numbers = batch_for(task, 4), [0, 1, 2, 1]
    batch.targets = torch.eye(3)[numbers] if batch.targets.is_floating_point() else torch.tensor(numbers)
    optimizer = build_optimizer(model, OptimizerConfig(lr=5e-3, weight_decay=0.0))
    for _ in range(100):
        losses = task.losses(model, inputs_for(task, model, batch))
        optimizer.zero_grad()
        task.weighted(losses).mean().backward()
        optimizer.step()
        if losses["accuracy"].all() and losses["task"].max() < 0.8:
            break
    logits = task.predict(model.eval(), inputs_for(task, model, batch))
    assert logits.argmax(dim=1).tolist() == numbers


def test_asking():
    task = QuestionAnswering(classes=CLASSES, prompt="{} ?")
    records = [record("no answer"), record("what", "dog"), record("who", "fox", "fox")]
    says = asking(task, iter(records))
    assert (says.is_plain, says.num_pictures) == (False, 1)
    assert list(says.all(records)) == ["what ? dog", "who ? fox"]
    assert says.choose(records[1], random.Random(0), name="x").prompt == "what ?"
    with pytest.raises(InputError, match="^a.png: has no answers$"):
        says.choose(records[0], None, name="a.png")


@pytest.mark.parametrize("task", all_tasks(), ids=lambda task: task.name)
def test_a_filler_has_the_shape_of_the_others(task):
    second = "b.png" if task.num_pictures > 1 else None
    says = asking(task, [record("a", "dog", second=second, **{getattr(task, "label", "_"): "dog"})])
    filler, expected = says.filler(), like(task)
    assert filler.target.shape == expected.target.shape and filler.target.dtype == expected.target.dtype
    assert not filler.target.any() and says.num_pictures == task.num_pictures


def test_nothing_can_be_asked():
    task = Entailment(classes=CLASSES)
    with pytest.raises(
        InputError, match="the task entailment can ask nothing of these samples: there are none"
    ):
        asking(task, [])
    with pytest.raises(InputError, match="samples: a.png: lacks the label 'relation'; it has x"):
        asking(task, [record(x="y")])


def test_pairs_and_single_files():
    single, pairs = Classification(classes=CLASSES), PicturePairs(classes=CLASSES)
    for task, files in ((single, record()), (single, IN_SHARD), (pairs, record(second="b.png"))):
        check_pictures(task, files)
    alone = "the task picture_pairs is about pairs, found a single file, without second_path"
    for files in (record(), IN_SHARD):
        assert refusal(pairs, files) == alone
    found = refusal(single, record(second="b.png"))
    assert found == "the task classification is about single files, found a pair"
    assert refusal(pairs, record(second="b.mp4")) == (
        "the task picture_pairs is about pairs of pictures, found a video"
    )
    with pytest.raises(InputError, match="a.png: the task picture_pairs is about pairs"):
        asking(pairs, [record(second="b.png", answer="dog")]).choose(record(answer="dog"), None, name="a.png")


def refusal(task, files) -> str:
    with pytest.raises(InputError) as caught:
        check_pictures(task, files)
    return str(caught.value)


@dataclass
class Weighed(Classification):
    name: ClassVar[str] = "weighed"

    def weights(self) -> dict[str, float]:
        return {"a": 2.0, "b": 0.0, "c": 1.0}


def test_losses_are_weighed():
    task, losses = Weighed(classes=CLASSES), {"a": torch.tensor(1.0), "b": torch.tensor(5.0)}
    assert task.weighted(losses) == 2 and task.weighted(losses | {"c": torch.tensor(3.0)}) == 5
    with pytest.raises(ValueError, match="the task weighed: none of its losses b, x has a weight"):
        task.weighted({"b": torch.tensor(1.0), "x": torch.tensor(1.0)})
