"""SNLI-VE: does a picture entail a statement, contradict it, or neither (CoCa, section 4.2.2)?"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from coca_video.data.captions import Caption, Record
from coca_video.metrics.classification import class_accuracy, top_k
from coca_video.models.coca import CoCa
from coca_video.tasks.choice import Choice, features_of_prompt, label_of, scores_of, values_of
from coca_video.tasks.task import Judged, TaskInputs


@dataclass
class Entailment(Choice):
    """A statement is read in sight of the picture, and a label of the record says how they stand."""

    name: ClassVar[str] = "entailment"

    label: str = "relation"

    def classes_of(self, records: Iterable[Record]) -> list[str]:
        return values_of(records, self.label)

    def ask(self, record: Record, rng: random.Random | None) -> Caption:
        number = self.number_of(label_of(record, self.label))
        return Caption("", record.text, prompt=self.question(record), target=number)

    def question(self, record: Record) -> str:
        return record.text

    def features(self, model: CoCa, inputs: TaskInputs) -> tuple[Tensor, Tensor]:
        return features_of_prompt(model, inputs)

    def judge(self, records: list[Record], predictions: Tensor) -> Judged:
        labels = torch.stack([self.ask(record, None).target for record in records])
        scores = scores_of(predictions)
        by_class = zip(self.classes, class_accuracy(scores, labels).accuracy.tolist())
        present = {name: value for name, value in by_class if value == value}
        figures = {"accuracy": top_k(scores, labels, 1), self.label: present}
        best = scores.argmax(dim=1).tolist()
        return Judged(figures, [{"predicted": self.classes[i]} for i in best], scores, labels)
