"""NLVR2: is a statement about two pictures true? Each is read with it, and both are judged together."""

from dataclasses import dataclass
from typing import ClassVar

from einops import rearrange, repeat
from torch import Tensor

from coca_video.data.captions import Record
from coca_video.metrics.question_answering import consistency
from coca_video.models.coca import CoCa
from coca_video.tasks.entailment import Entailment
from coca_video.tasks.task import Judged, TaskInputs


@dataclass
class PicturePairs(Entailment):
    """CoCa, section 4.2.2: two pairs of picture and text, whose pooled features are concatenated."""

    name: ClassVar[str] = "picture_pairs"
    num_pictures: ClassVar[int] = 2

    label: str = "answer"
    group: str = "group"  # the label that the pairs of one sentence share, for NLVR2's consistency

    def features(self, model: CoCa, inputs: TaskInputs) -> tuple[Tensor, Tensor]:
        """'(b 2) l d', bool '(b 2) l'."""
        tokens = rearrange(inputs.tokens, "b t n d -> (b t) 1 n d")
        texts = (inputs.ids, inputs.text_mask, inputs.prompt_mask)
        ids, text_mask, prompt_mask = (repeat(x, "b l -> (b t) l", t=self.num_pictures) for x in texts)
        return model.fuse(tokens, ids, text_mask), prompt_mask

    def judge(self, records: list[Record], predictions: Tensor) -> Judged:
        judged = super().judge(records, predictions)
        if all(self.group in record.labels for record in records):
            is_right = (judged.scores.argmax(dim=1) == judged.labels).tolist()
            groups = [record.labels[self.group] for record in records]
            judged.figures["consistency"] = consistency(is_right, groups)
        return judged
