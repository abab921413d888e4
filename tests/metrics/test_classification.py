import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coca_video.metrics.classification import (
    class_accuracy,
    combined_views,
    confusion,
    mean_class_accuracy,
    top_figures,
    top_k,
)

# Three rows of class 0, one of class 1 and none of class 2. Row 2 ties with class 2, which counts against.
SCORES = torch.tensor([[0.9, 0.1, 0.2], [0.1, 0.8, 0.3], [0.5, 0.1, 0.5], [0.1, 0.2, 0.1]])
LABELS = torch.tensor([0, 0, 0, 1])
EXAMPLES = settings(max_examples=40, deadline=None, derandomize=True)


def test_top_k_of_hand_made_scores():
    assert [top_k(SCORES, LABELS, k) for k in (1, 2, 3, 5)] == [50, 75, 100, 100]


def test_top_figures():
    scores = torch.arange(10.0).expand(4, 10)
    labels = torch.tensor([9, 5, 4, 0])
    assert top_figures(scores, labels) == {"top1": 25.0, "top5": 50.0, "mean_top1_top5": 37.5}
    assert top_figures(SCORES, LABELS)["top5"] == 100  # of three classes


def test_each_class_for_itself():
    by_class = class_accuracy(SCORES, LABELS)
    assert by_class.support.tolist() == [3, 1, 0]
    assert by_class.accuracy[:2].tolist() == pytest.approx([100 / 3, 100])
    assert math.isnan(by_class.accuracy[2])
    assert mean_class_accuracy(SCORES, LABELS) == pytest.approx((100 / 3 + 100) / 2)


def test_confusion_names_what_was_taken_for_what():
    assert confusion(SCORES, LABELS).tolist() == [[1, 1, 1], [0, 1, 0], [0, 0, 0]]
    assert confusion(torch.ones(2, 3), torch.tensor([0, 2])).tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]


def test_infinite_scores_are_compared():
    scores = torch.tensor([[float("-inf"), float("-inf")], [float("inf"), 0.0]])
    assert confusion(scores, torch.tensor([0, 0])).tolist() == [[1, 1], [0, 0]]


@st.composite
def scores_and_labels(draw):
    num_classes = draw(st.integers(1, 7))
    row = st.lists(st.integers(0, 3).map(float), min_size=num_classes, max_size=num_classes)
    rows = draw(st.lists(st.tuples(row, st.integers(0, num_classes - 1)), min_size=1, max_size=12))
    return zip(*rows)


@EXAMPLES
@given(scores_and_labels())
def test_equals_the_naive_loops(rows):
    scores, labels = map(list, rows)
    found = [
        sum(other >= row[label] for j, other in enumerate(row) if j != label)
        for row, label in zip(scores, labels)
    ]
    top1, top5 = (100 * sum(rank < k for rank in found) / len(found) for k in (1, 5))
    given = torch.tensor(scores), torch.tensor(labels)
    expected = {"top1": top1, "top5": top5, "mean_top1_top5": (top1 + top5) / 2}
    assert top_figures(*given) == pytest.approx(expected)
    counts = confusion(*given)
    for label in range(len(scores[0])):
        right = [rank == 0 for rank, other in zip(found, labels) if other == label]
        assert counts[label].sum() == len(right)
        assert counts[label, label] == sum(right)
    shares = [
        sum(rank == 0 for rank, other in zip(found, labels) if other == label) / labels.count(label)
        for label in set(labels)
    ]
    assert mean_class_accuracy(*given) == pytest.approx(100 * sum(shares) / len(shares))


VIEWS = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 0.4, 0.5]]])


def test_probabilities_of_views_are_added():
    def softmax(row):
        exps = [math.exp(3 * x) for x in row]
        return [x / sum(exps) for x in exps]

    first, second = map(softmax, VIEWS[0].tolist())
    expected = [x + y for x, y in zip(first, second)]
    assert combined_views(VIEWS, scale=3.0)[0].tolist() == pytest.approx(expected)
    expected = [max(x, y) for x, y in zip(first, second)]
    assert combined_views(VIEWS, how="softmax_max", scale=3.0)[0].tolist() == pytest.approx(expected)


def test_the_combination_of_views_decides():
    """The mean is for class 0, but with a sharp softmax two views of three are for class 1."""
    views = torch.tensor([[[0.9, 0.0, 0.1], [0.3, 0.4, 0.1], [0.3, 0.4, 0.1]]])
    assert combined_views(views, how="mean")[0].tolist() == pytest.approx([0.5, 0.8 / 3, 0.1])
    assert combined_views(views, scale=100.0).argmax() == 1


def test_one_view_changes_no_rank():
    """Also where float32 would round the probabilities to zero."""
    scores = torch.tensor([[1.0, -0.5, -0.4, -0.9]])
    combined = combined_views(scores[:, None], scale=100.0)
    assert combined.argsort().tolist() == scores.argsort().tolist()
    assert len(combined.unique()) == 4


def test_nan_is_an_error():
    scores = SCORES.clone()
    scores[1, :2] = float("nan")
    for metric in (
        lambda *given: top_k(*given, 1),
        top_figures,
        class_accuracy,
        mean_class_accuracy,
        confusion,
    ):
        with pytest.raises(ValueError, match="scores has 2 NaN of 12 values"):
            metric(scores, LABELS)
    with pytest.raises(ValueError, match="similarity has 2 NaN of 12 values"):
        combined_views(scores[None])


@pytest.mark.parametrize(
    "scores, labels, message",
    [
        (
            torch.zeros(0, 3),
            torch.tensor([], dtype=torch.int64),
            r"one or more rows .* got \(0, 3\) and \(0,\)",
        ),
        (SCORES, LABELS[:1], r"a label for each, got \(4, 3\) and \(1,\)"),
        (SCORES[0], LABELS, r"expected scores 'n classes' .* got \(3,\) and \(4,\)"),
        (SCORES, torch.tensor([0, 3, 4, 0]), r"labels\[1\] is 3, but there are 3 classes"),
        (SCORES, torch.tensor([0, 1, -1, 0]), r"labels\[2\] is -1, but there are 3 classes"),
    ],
)
def test_what_does_not_pair_is_an_error(scores, labels, message):
    for metric in (top_figures, confusion, mean_class_accuracy):
        with pytest.raises(ValueError, match=message):
            metric(scores, labels)


def test_unknown_views_are_an_error():
    with pytest.raises(ValueError, match="how is 'median', expected one of softmax_sum, softmax_max, mean"):
        combined_views(VIEWS, how="median")
    with pytest.raises(ValueError, match="scale must be positive, got 0"):
        combined_views(VIEWS, scale=0)
    with pytest.raises(ValueError, match=r"'n views classes', got \(4, 3\)"):
        combined_views(SCORES)
    with pytest.raises(ValueError, match=r"'n views classes', got \(4, 0, 3\)"):
        combined_views(torch.zeros(4, 0, 3))
