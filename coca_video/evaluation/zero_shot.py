"""Zero-shot classification: class names become texts, the nearest text is the prediction."""

from dataclasses import dataclass, field
from enum import Enum

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from coca_video.data.benchmarks.card import Card
from coca_video.data.benchmarks.vocabulary import templates
from coca_video.data.manifest import ClipRecord
from coca_video.errors import InputError
from coca_video.evaluation.selection import Evaluated
from coca_video.evaluation.subject import Subject
from coca_video.metrics.classification import (
    class_accuracy,
    combined_views,
    confusion,
    mean_class_accuracy,
    top_figures,
)

NUM_LISTED = 5  # classes: listed with each prediction


class Views(str, Enum):
    """What is made of several views of a clip."""

    softmax_sum = "softmax_sum"  # their probabilities are added (SlowFast, X-CLIP)
    mean_embedding = "mean_embedding"  # their embeddings are averaged, and made unit length


@dataclass
class ClassificationConfig:
    label: str = "class"  # of the records; those without it take no part
    templates: list[str] = field(default_factory=lambda: ["plain"])  # prompts with {}, or names of their sets
    views: Views = Views.softmax_sum

    def __post_init__(self) -> None:
        if not self.templates:
            raise ValueError("templates must hold at least one prompt or name of a set, got none")


@dataclass
class Classified:
    figures: dict
    listed: dict[int, dict]  # by number of the record
    classes: list[str]
    accuracy: list[float]  # per cent, one a class; NaN for one without clips
    support: list[int]  # clips of each class
    confusion: Tensor  # int 'classes classes', rows: truth


def classify(
    subject: Subject, evaluated: Evaluated, config: ClassificationConfig, *, lead: str
) -> Classified:
    """Figures of every reading; what is said of single clips and classes is of the reading `lead`."""
    chosen = evaluated.select(config.label)
    ids, classes = class_names(evaluated.records, evaluated.card, config.label)
    numbers = {each: i for i, each in enumerate(ids)}
    labels = torch.tensor([numbers[record.labels[config.label]] for record in chosen.records])
    prompts = resolve_templates(config.templates)
    texts = class_embeddings(subject, classes, prompts)
    scores = {
        reading: _scores(
            evaluated.features.embeddings[reading][chosen.rows], texts, config.views, subject.scale
        )
        for reading in subject.readings
    }
    figures = chosen.counts() | {
        "num_classes": len(classes),
        "label": config.label,
        "templates": {"sets": config.templates, "prompts": prompts},
        "views": config.views.value,
        "figures": {
            reading: top_figures(each, labels) | {"mean_class_accuracy": mean_class_accuracy(each, labels)}
            for reading, each in scores.items()
        },
    }
    by_class = class_accuracy(scores[lead], labels)
    probabilities = scores[lead] / scores[lead].sum(dim=1, keepdim=True)
    listed = {i: {"top_classes": best(row, classes)} for i, row in zip(chosen.indices, probabilities)}
    counts = confusion(scores[lead], labels)
    return Classified(figures, listed, classes, by_class.accuracy.tolist(), by_class.support.tolist(), counts)


def resolve_templates(given: list[str]) -> list[str]:
    """Prompts as they are, the names of sets replaced by theirs."""
    return [prompt for each in given for prompt in ([each] if "{}" in each else templates(each))]


def class_embeddings(subject: Subject, classes: list[str], templates: list[str]) -> Tensor:
    """Per class the mean of its prompts' unit embeddings, made unit again (CLIP's protocol): 'classes e'.

    Classes of one name share one embedding, so that they tie.
    """
    numbers = {name: i for i, name in enumerate(dict.fromkeys(classes))}
    prompts = [template.replace("{}", name) for name in numbers for template in templates]
    embeddings = rearrange(subject.encode_texts(prompts), "(c p) e -> c p e", c=len(numbers))
    return F.normalize(embeddings.mean(dim=1), dim=-1)[[numbers[name] for name in classes]]


def best(scores: Tensor, names: list[str]) -> list[list]:
    """The highest scores with their names, best first."""
    values, indices = scores.topk(min(NUM_LISTED, len(names)))
    return [[names[i], value] for i, value in zip(indices.tolist(), values.tolist())]


def class_names(records: list[ClipRecord], card: Card | None, label: str) -> tuple[list[str], list[str]]:
    """What the label holds, and what prompts say: the publisher's list, else what is there.

    A copy that lacks classes, or has clips that cannot be read, must not be an easier task.
    Raises InputError for a record of a class that is not on the card.
    """
    there = sorted({record.labels[label] for record in records if label in record.labels})
    if card is None or not card.classes or label != "class":
        return there, there
    if unknown := sorted(set(there) - set(card.class_ids)):
        raise InputError(f"evaluate: {unknown[0]!r} is none of the {len(card.class_ids)} classes on the card")
    return card.class_ids, card.classes


def _scores(embeddings: Tensor, texts: Tensor, views: Views, scale: float) -> Tensor:
    """'n views e', 'classes e' -> positive float64 'n classes'."""
    if views is Views.mean_embedding:
        embeddings = F.normalize(embeddings.mean(dim=1, keepdim=True), dim=-1)
    distinct, which = texts.unique(dim=0, return_inverse=True)  # a product may depend on its place
    similarity = torch.einsum("nve,ce->nvc", embeddings, distinct)[..., which]
    return combined_views(similarity, how="softmax_sum", scale=scale)
