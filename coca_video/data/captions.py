"""What is said of a record: one of its own texts, or a label in the words of a prompt."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import ClassVar, Protocol

from torch import Tensor

from coca_video.data.benchmarks.vocabulary import templates
from coca_video.data.manifest import ClipRecord
from coca_video.data.shard_records import ShardRecord
from coca_video.errors import InputError

Record = ShardRecord | ClipRecord


@dataclass(frozen=True)
class Caption:
    text: str
    group: str  # equal for texts that say the same: no negatives of each other
    prompt: str = ""  # stands before the text, is read and not to be written: a question
    target: Tensor | None = None  # what a task's head shall say, of the shape that all samples' targets have


class Teller(Protocol):
    """Says what a record is read with: captions, or what a task asks of it."""

    is_plain: bool  # the texts are the records' own, and nothing else is said
    num_pictures: int  # that a sample has at least

    def choose(self, record: Record, rng: random.Random | None, *, name: str) -> Caption:
        """A random one; without `rng` always the same. Raises InputError for a record without, naming it."""

    def all(self, records: Iterable[Record]) -> Iterator[str]:
        """Every text of these records, for a tokenizer to learn from. What has none is left out."""

    def filler(self) -> Caption:
        """Of no meaning, in the shape of the others."""


@dataclass(frozen=True)
class Captions:
    """templates: prompts with one {} each, for the label `label`, or for the record's text without one.

    Without templates the text is one of the record's own, and its own group.
    """

    num_pictures: ClassVar[int] = 1

    templates: list[str] = field(default_factory=list)
    label: str | None = None

    @classmethod
    def of(cls, prompts: str | None, label: str | None) -> "Captions":
        """prompts: see `vocabulary.templates`, whose InputErrors these are; None: the records' own texts."""
        return cls(templates(prompts) if prompts else [], label)

    @property
    def is_plain(self) -> bool:
        return not self.templates

    def filler(self) -> Caption:
        return Caption("a", "a")

    def choose(self, record: Record, rng: random.Random | None, *, name: str) -> Caption:
        """A random one; without `rng` the first. Raises InputError for a record without: `name` names it."""
        if not self.templates:
            text = group = _any(record.texts, rng)
        else:
            group = self._label(record, name)
            text = _any(self.templates, rng).format(group)
        if not group.strip():
            raise InputError(f"{name}: its text is empty")
        return Caption(text, group)

    def all(self, records: Iterable[Record]) -> Iterator[str]:
        """Every text of these records; of prompts one each in turn. What has no text is left out."""
        if not self.templates:
            yield from (text for record in records for text in record.texts)
            return
        for record, template in zip(records, cycle(self.templates)):
            if self.label is None or self.label in record.labels:
                yield template.format(self._label(record, ""))

    def _label(self, record: Record, name: str) -> str:
        if self.label is None:
            return record.text
        if self.label not in record.labels:
            found = ", ".join(record.labels) or "no labels"
            raise InputError(f"{name}: lacks the label {self.label!r}; it has {found}")
        return record.labels[self.label]


def _any(texts: list[str], rng: random.Random | None) -> str:
    return rng.choice(texts) if rng and len(texts) > 1 else texts[0]
