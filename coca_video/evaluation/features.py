"""What zero-shot tasks are judged by: embeddings of every clip, and captions where they are asked for."""

from dataclasses import dataclass

from einops import rearrange
from torch import Tensor

from coca_video.data.examples import Example
from coca_video.data.manifest import ClipRecord
from coca_video.evaluation.captioning import DecodingConfig
from coca_video.evaluation.parts import Failed, Made, Rows, check_numbers
from coca_video.evaluation.subject import Subject

EMBEDDINGS = "embeddings"


@dataclass
class Features:
    """Of the records that could be read, in their order."""

    indices: list[int]
    embeddings: dict[str, Tensor]  # by reading, unit length 'b views e'; empty where none were asked for
    captions: dict[str, list[str]]  # by reading; likewise
    failed: list[Failed]


@dataclass(frozen=True)
class MakeFeatures:
    """decoding: how captions are written of each clip; None for none, and only with a single view."""

    subject: Subject
    num_views: int
    decoding: DecodingConfig | None = None

    def __call__(self, examples: list[Example], records: list[ClipRecord]) -> Rows:
        clips = [view for example in examples for view in example.views]
        encoded = self.subject.encode(clips, [example.origin for example in examples])
        check_numbers(encoded.embeddings, records, what=EMBEDDINGS)
        embeddings = {
            reading: rearrange(rows, "(b v) e -> b v e", v=self.num_views)
            for reading, rows in encoded.embeddings.items()
        }
        return Rows(embeddings, self.subject.write(encoded, self.decoding) if self.decoding else {})


def features_of(made: Made) -> Features:
    rows = made.rows.get(EMBEDDINGS, Rows())
    return Features(made.indices, rows.tensors, rows.texts, made.failed)
