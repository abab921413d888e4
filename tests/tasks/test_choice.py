import math

import pytest
import torch
from taught import CLASSES, record

from coca_video.errors import InputError
from coca_video.tasks.choice import hits, label_of, scores_of, values_of
from coca_video.tasks.classification import Classification

LOGITS = torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 0.5]])


def log_softmax(row: list[float]) -> list[float]:
    total = math.log(sum(math.exp(x) for x in row))
    return [x - total for x in row]


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_of_numbers_and_of_shares(smoothing):
    task = Classification(classes=CLASSES, label_smoothing=smoothing)
    shares = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]])
    expected = [
        -sum((share * (1 - smoothing) + smoothing / 3) * value for share, value in zip(row, log_softmax(of)))
        for row, of in zip(shares.tolist(), LOGITS.tolist())
    ]
    assert task.choice_loss(LOGITS, shares).tolist() == pytest.approx(expected)
    numbers = task.choice_loss(LOGITS[1:], torch.tensor([2]))
    assert numbers.tolist() == pytest.approx(expected[1:])


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_where_no_class_is_right_there_is_no_loss(smoothing):
    logits = LOGITS.clone().requires_grad_()
    task = Classification(classes=CLASSES, label_smoothing=smoothing)
    losses = task.choice_loss(logits, torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    losses.sum().backward()
    assert losses[0] == 0 < losses[1] and not logits.grad[0].any() and logits.grad[1].any()


def test_hits():
    assert hits(LOGITS, torch.tensor([0, 0])).tolist() == [1, 0]
    shares = torch.tensor([[0.3, 0.6, 0.1], [0.0, 0.0, 0.0]])
    assert hits(LOGITS, shares).tolist() == [0.5, 0]  # half as right as the best one


def test_views_vote_by_their_probabilities():
    views = torch.tensor([[[9.0, 0.0], [0.0, 1.0], [0.0, 1.0]]])
    expected = [math.exp(9) / (1 + math.exp(9)) + 2 / (1 + math.e)]
    assert scores_of(views)[0, 0].item() == pytest.approx(expected[0])
    assert scores_of(views).argmax().item() == 0


def test_classes_come_from_the_records_or_the_settings():
    records = [record(class_="x"), record(**{"class": "fox"}), record(**{"class": "cat"})]
    task = Classification().prepared(iter(records))
    assert task.classes == ["cat", "fox"] and task.number_of("fox") == 1
    assert Classification(classes=["b", "a"]).prepared([]).classes == ["b", "a"]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "none of the samples has the label 'class'; they have no labels"),
        ([record(animal="cat"), record(plant="x")], "has the label 'class'; they have animal, plant"),
        ([record(**{"class": "cat"})], "the task classification needs two classes at least, found cat"),
    ],
)
def test_too_few_classes(records, message):
    with pytest.raises(InputError, match=message):
        Classification().prepared(records)


def test_values_and_labels():
    assert values_of([record(a="2"), record(a="1"), record(b="x"), record(a="2")], "a") == ["1", "2"]
    assert label_of(record(a="2"), "a") == "2"
    with pytest.raises(InputError, match="lacks the label 'b'; it has a"):
        label_of(record(a="2"), "b")


def test_what_is_no_class():
    with pytest.raises(InputError, match="'cow' is none of the 3 classes"):
        Classification(classes=CLASSES).number_of("cow")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": ["a", "b", "a"]}, "classes must differ"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1.0"),
        ({"label_smoothing": -0.1}, r"label_smoothing must be in \[0, 1\), got -0.1"),
    ],
)
def test_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Classification(**settings)
