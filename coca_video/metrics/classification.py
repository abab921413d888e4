"""How good class scores are. All accuracies are in per cent; a tie counts against, a NaN is an error."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from coca_video.metrics.ranking import ranks, recall

ViewCombination = Literal["softmax_sum", "softmax_max", "mean"]


@dataclass
class ClassAccuracy:
    accuracy: Tensor  # float64 'classes', per cent; NaN for a class that no label names
    support: Tensor  # int64 'classes': how many labels name it


def top_k(scores: Tensor, labels: Tensor, k: int) -> float:
    """The share of rows whose label is among the k highest scores: scores 'n classes', labels int 'n'.

    With k classes or fewer it is 100. Raises ValueError for a NaN, no rows, lengths that differ, or a label
    that is no class; so do all functions of scores and labels here.
    """
    _check(scores, labels)
    return recall(ranks(scores, labels), k)


def top_figures(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """`top_k` for 1 and 5, and their mean, which papers on Kinetics report."""
    _check(scores, labels)
    rank = ranks(scores, labels)
    top1, top5 = recall(rank, 1), recall(rank, 5)
    return {"top1": top1, "top5": top5, "mean_top1_top5": (top1 + top5) / 2}


def class_accuracy(scores: Tensor, labels: Tensor) -> ClassAccuracy:
    """Top-1 accuracy among the rows of each class."""
    counts = confusion(scores, labels)
    support = counts.sum(dim=1)
    return ClassAccuracy(accuracy=100 * counts.diagonal().double() / support, support=support)


def mean_class_accuracy(scores: Tensor, labels: Tensor) -> float:
    """The mean of the top-1 accuracies of all classes that a label names, each counting the same."""
    return class_accuracy(scores, labels).accuracy.nanmean().item()


def confusion(scores: Tensor, labels: Tensor) -> Tensor:
    """int64 'classes classes': how often each class (rows) was taken for each (columns).

    Where others score as high as the label, the first of these is what it was taken for: the diagonal is what
    top-1 accuracy counts.
    """
    _check(scores, labels)
    num_classes = scores.shape[1]
    best_others = scores == scores.amax(dim=1, keepdim=True)
    best_others.scatter_(1, labels[:, None], False)
    predicted = torch.where(best_others.any(dim=1), best_others.byte().argmax(dim=1), labels)
    counts = (labels * num_classes + predicted).bincount(minlength=num_classes**2)
    return counts.view(num_classes, num_classes)


def combined_views(similarity: Tensor, *, how: ViewCombination = "softmax_sum", scale: float = 1.0) -> Tensor:
    """One row of scores for all views of a clip: 'n views classes' -> float64 'n classes'.

    `softmax_sum` adds the views' probabilities, softmax(scale * similarity), as SlowFast (arXiv 1812.03982)
    and X-CLIP (arXiv 2208.02816) do; `softmax_max` takes the highest of each class; `mean` averages the
    similarity. Averaging embeddings comes before it, and is the caller's. Raises ValueError for a NaN.
    """
    if similarity.ndim != 3 or not similarity.shape[1]:
        raise ValueError(f"similarity must be 'n views classes', got {tuple(similarity.shape)}")
    if how not in get_args(ViewCombination):
        raise ValueError(f"how is {how!r}, expected one of {', '.join(get_args(ViewCombination))}")
    if not 0 < scale < float("inf"):
        raise ValueError(f"scale must be positive, got {scale}")
    _check_nan(similarity, "similarity")
    if how == "mean":
        return similarity.double().mean(dim=1)
    # In float64, as in float32 unlikely classes would have a probability of zero, and tie.
    probabilities = (scale * similarity.double()).softmax(dim=-1)
    return probabilities.sum(dim=1) if how == "softmax_sum" else probabilities.amax(dim=1)


def _check(scores: Tensor, labels: Tensor) -> None:
    if scores.ndim != 2 or not len(scores) or labels.shape != scores.shape[:1]:
        raise ValueError(
            "expected scores 'n classes' of one or more rows and a label for each, "
            f"got {tuple(scores.shape)} and {tuple(labels.shape)}"
        )
    wrong = ((labels < 0) | (labels >= scores.shape[1])).nonzero().flatten()
    if len(wrong):
        first = int(wrong[0])
        raise ValueError(f"labels[{first}] is {int(labels[first])}, but there are {scores.shape[1]} classes")
    _check_nan(scores, "scores")


def _check_nan(x: Tensor, name: str) -> None:
    if x.isnan().any():
        raise ValueError(f"{name} has {int(x.isnan().sum())} NaN of {x.numel()} values")
