"""Recognition of pictures and videos: a new query reads the tokens of all frames (CoCa, section 3.3)."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from coca_video.data.captions import Caption, Record
from coca_video.layers.positions import TimePositions
from coca_video.metrics.classification import mean_class_accuracy, top_figures
from coca_video.models.classifier import PooledClassifier
from coca_video.models.coca import CoCa, CoCaConfig
from coca_video.tasks.choice import Choice, label_of, scores_of, values_of
from coca_video.tasks.task import Judged, TaskInputs


class TokenClassifier(nn.Module):
    """tokens 'b t n d', frame_mask bool 'b t' -> logits 'b c'."""

    def __init__(self, width: int, num_heads: int, *, num_classes: int, num_positions: int):
        super().__init__()
        self.positions = TimePositions(num_positions, width) if num_positions else None
        self.classifier = PooledClassifier(width, num_heads, num_classes=num_classes)

    def forward(self, tokens: Tensor, *, mask: Tensor) -> Tensor:
        if self.positions is not None:
            tokens = self.positions(tokens, mask)
        visible = repeat(mask, "b t -> b (t n)", n=tokens.shape[2])
        return self.classifier(rearrange(tokens, "b t n d -> b (t n) d"), mask=visible)


@dataclass
class Classification(Choice):
    name: ClassVar[str] = "classification"

    label: str = "class"  # which of the records' labels
    num_positions: int = 0  # frames with a learned position of their own; 0: a set of frames, as in the paper
    # Evaluation chooses among the classes that occur in what is evaluated, as zero-shot classification does
    only_present: bool = False

    def classes_of(self, records: Iterable[Record]) -> list[str]:
        return values_of(records, self.label)

    def ask(self, record: Record, rng: random.Random | None) -> Caption:
        return Caption("", "", target=self.number_of(label_of(record, self.label)))

    def head(self, config: CoCaConfig) -> TokenClassifier:
        image = config.image
        sizes = {"num_classes": len(self.classes), "num_positions": self.num_positions}
        return TokenClassifier(image.width, image.num_heads, **sizes)

    def features(self, model: CoCa, inputs: TaskInputs) -> tuple[Tensor, Tensor]:
        return inputs.tokens, inputs.frame_mask

    def judge(self, records: list[Record], predictions: Tensor) -> Judged:
        labels = torch.stack([self.ask(record, None).target for record in records])
        scores = scores_of(predictions)
        if self.only_present:
            present = labels.unique()
            absent = torch.ones(len(self.classes), dtype=torch.bool).index_fill(0, present, False)
            scores = scores.masked_fill(absent, -1.0)
        figures = top_figures(scores, labels) | {"mean_class_accuracy": mean_class_accuracy(scores, labels)}
        best = scores.argmax(dim=1).tolist()
        return Judged(figures, [{"predicted": self.classes[i]} for i in best], scores, labels)
