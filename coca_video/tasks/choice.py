"""What all tasks share that choose among classes: one learned query over features, and a softmax."""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from coca_video.data.captions import Record
from coca_video.errors import InputError
from coca_video.metrics.classification import combined_views
from coca_video.models.classifier import PooledClassifier
from coca_video.models.coca import CoCa, CoCaConfig
from coca_video.tasks.task import Task, TaskInputs


@dataclass
class Choice(Task):
    """Targets are the number of the class, int 'b', or a share of each class, float 'b c'.

    A row of shares that are all zero, none of the classes being right, has a loss of zero.
    """

    classes: list[str] = field(default_factory=list)  # in order; empty: those of the training records
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {self.label_smoothing}")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes must differ from each other")
        self._numbers = {name: i for i, name in enumerate(self.classes)}

    @abstractmethod
    def classes_of(self, records: Iterable[Record]) -> list[str]:
        """In order; raises InputError where there are none."""

    @abstractmethod
    def features(self, model: CoCa, inputs: TaskInputs) -> tuple[Tensor, Tensor]:
        """What the head reads: 'b n d', mask bool 'b n'."""

    def prepared(self, records: Iterable[Record]) -> "Choice":
        classes = self.classes or self.classes_of(records)
        if len(classes) < 2:
            found = f"found {', '.join(classes) or 'none'}"
            raise InputError(f"the task {self.name} needs two classes at least, {found}")
        return replace(self, classes=classes)

    def head(self, config: CoCaConfig) -> PooledClassifier:
        text = config.text
        return PooledClassifier(
            text.width, text.num_heads, num_classes=len(self.classes), num_parts=self.num_pictures
        )

    def losses(self, model: CoCa, inputs: TaskInputs) -> dict[str, Tensor]:
        return self.choice_losses(self.predict(model, inputs), inputs.targets)

    def choice_losses(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"task": self.choice_loss(logits, targets), "accuracy": hits(logits, targets)}

    def choice_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """'b c' and targets -> cross-entropy 'b'."""
        smoothing = {"label_smoothing": self.label_smoothing, "reduction": "none"}
        losses = F.cross_entropy(logits.float(), targets, **smoothing)
        if targets.is_floating_point():  # smoothing gives each class a share, also where none is right
            losses = losses * targets.any(dim=1)
        return losses

    def predict(self, model: CoCa, inputs: TaskInputs) -> Tensor:
        """Logits 'b c'."""
        features, mask = self.features(model, inputs)
        return model.task_head(features, mask=mask)

    def number_of(self, name: str) -> Tensor:
        """int64 scalar. Raises InputError for what is no class."""
        if name not in self._numbers:
            raise InputError(f"{name!r} is none of the {len(self.classes)} classes")
        return torch.tensor(self._numbers[name])


def features_of_prompt(model: CoCa, inputs: TaskInputs) -> tuple[Tensor, Tensor]:
    """The decoder's features 'b l d' in sight of the picture, and which of them are the prompt's, bool 'b l'.

    No token of a prompt knows the text behind it.
    """
    features = model.fuse(inputs.tokens, inputs.ids, inputs.text_mask, inputs.frame_mask)
    return features, inputs.prompt_mask


def hits(logits: Tensor, targets: Tensor) -> Tensor:
    """'b c' -> 'b': 1 where the highest logit is the target; of shares, by that of the best class."""
    best = logits.argmax(dim=1)
    if targets.is_floating_point():
        return targets.gather(1, best.unsqueeze(1)).squeeze(1) / targets.amax(dim=1).clamp(min=1e-6)
    return (best == targets).float()


def label_of(record: Record, label: str) -> str:
    """Raises InputError, without the record's name, for one that lacks the label."""
    if label not in record.labels:
        found = ", ".join(record.labels) or "none"
        raise InputError(f"lacks the label {label!r}; it has {found}")
    return record.labels[label]


def values_of(records: Iterable[Record], label: str) -> list[str]:
    """In the order of the alphabet. Raises InputError where no record has the label."""
    values, others = set[str](), set[str]()
    for record in records:
        values |= {record.labels[label]} if label in record.labels else set()
        others |= record.labels.keys()
    if not values:
        found = ", ".join(sorted(others)) or "no labels"
        raise InputError(f"none of the samples has the label {label!r}; they have {found}")
    return sorted(values)


def scores_of(predictions: Tensor) -> Tensor:
    """Logits of all views, 'n views c' -> float64 'n c', the sum of their probabilities."""
    return combined_views(predictions, how="softmax_sum")
