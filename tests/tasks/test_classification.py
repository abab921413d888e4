import pytest
import torch
from taught import CLASSES, batch_for, inputs_for, record, with_head
from tiny import coca, shaken

from coca_video.tasks.classification import Classification, TokenClassifier


def test_a_clip_is_the_set_of_its_real_frames():
    task = Classification(classes=CLASSES)
    model = with_head(coca(), task)
    inputs = inputs_for(task, model)
    logits = task.predict(model, inputs)
    assert logits.shape == (3, 3)
    for i, num_real in enumerate(inputs.frame_mask.sum(dim=1)):
        tokens = inputs.tokens[i : i + 1, :num_real].flip(1)
        alone = model.task_head(tokens, mask=torch.ones(1, num_real, dtype=torch.bool))
        torch.testing.assert_close(logits[i : i + 1], alone)


def test_with_positions_frames_have_an_order_but_not_with_one_frame():
    torch.manual_seed(0)
    head = shaken(TokenClassifier(16, 2, num_classes=3, num_positions=4))
    tokens, mask = torch.randn(2, 3, 4, 16), torch.tensor([[True] * 3, [True, False, False]])
    found, turned = head(tokens, mask=mask), head(tokens.flip(1), mask=mask.flip(1))
    assert not torch.allclose(found[0], turned[0])
    torch.testing.assert_close(found[1:], head(tokens[1:, :1], mask=mask[1:, :1]))


def test_losses():
    task = Classification(classes=CLASSES)
    model = with_head(coca(), task)
    inputs = inputs_for(task, model, batch_for(task, 5))
    losses, logits = task.losses(model, inputs), task.predict(model, inputs)
    expected = -logits.log_softmax(dim=1)[torch.arange(5), inputs.targets]
    torch.testing.assert_close(losses["task"], expected)
    assert losses["accuracy"].tolist() == (logits.argmax(dim=1) == inputs.targets).float().tolist()
    assert task.weights().keys() == {"task"}


def test_ask():
    task = Classification(classes=CLASSES, label="animal")
    asked = task.ask(record("a fox", animal="fox"), None)
    assert (asked.text, asked.prompt, asked.target.item()) == ("", "", 2)
    assert asked.target.dtype == torch.int64


LABELS = ["cat", "cat", "dog", "cat"]
PREDICTIONS = torch.tensor(
    [
        [[3.0, 1.0, 0.0]],  # right
        [[0.0, 1.0, 3.0]],  # third; second without the fox
        [[0.0, 1.0, 0.0]],  # right
        [[1.0, 0.0, 2.0]],  # second; right without the fox
    ]
)


@pytest.mark.parametrize(
    ("only_present", "top1", "by_class"), [(False, 50, (100 / 3 + 100) / 2), (True, 75, 250 / 3)]
)
def test_judge(only_present, top1, by_class):
    task = Classification(classes=CLASSES, only_present=only_present)
    records = [record(**{"class": name}) for name in LABELS]
    judged = task.judge(records, PREDICTIONS)
    assert judged.figures["top1"] == top1 and judged.figures["top5"] == 100
    assert judged.figures["mean_class_accuracy"] == pytest.approx(by_class)
    predicted = ["cat", "dog", "dog", "cat"] if only_present else ["cat", "fox", "dog", "fox"]
    assert judged.listed == [{"predicted": name} for name in predicted]
    assert judged.labels.tolist() == [0, 0, 1, 0] and judged.scores.shape == (4, 3)
