import pytest
import torch
from taught import CLASSES, batch_for, inputs_for, record, with_head
from tiny import POOLERS, coca, name

from coca_video.errors import InputError
from coca_video.tasks.entailment import Entailment


@pytest.mark.parametrize("changes", POOLERS, ids=name)
def test_each_row_is_read_as_if_alone(changes):
    """Without padding of text or frames, and without the end behind the statement."""
    task = Entailment(classes=CLASSES)
    model = with_head(coca(**changes), task)
    inputs = inputs_for(task, model, batch_for(task, 4))
    logits = task.predict(model, inputs)
    for i in range(4):
        tokens = inputs.tokens[i : i + 1, : inputs.frame_mask[i].sum()]
        ids = inputs.ids[i : i + 1, : inputs.prompt_mask[i].sum()]
        features = model.multimodal(model.unimodal.features(ids), model.pool(tokens)[0])
        torch.testing.assert_close(logits[i : i + 1], model.task_head(features))


def test_ask():
    task = Entailment(classes=CLASSES)
    asked = task.ask(record("it is red", relation="dog"), None)
    assert (asked.prompt, asked.text, asked.target.item()) == ("it is red", "", 1)
    assert task.question(record("it is red")) == "it is red"
    with pytest.raises(InputError, match="lacks the label 'relation'; it has none"):
        task.ask(record("it is red"), None)


def test_judge():
    task = Entailment(classes=CLASSES)
    records = [record(relation=name) for name in ("cat", "cat", "dog")]
    judged = task.judge(records, torch.eye(3)[[0, 2, 1]].unsqueeze(1))
    assert judged.figures == {"accuracy": pytest.approx(200 / 3), "relation": {"cat": 50, "dog": 100}}
    assert judged.listed == [{"predicted": name} for name in ("cat", "fox", "dog")]
