"""Retrieval: which text belongs to a clip, and which clip to a text."""

from dataclasses import dataclass
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor

from coca_video.data.manifest import ClipRecord
from coca_video.evaluation.selection import Evaluated
from coca_video.evaluation.subject import Subject
from coca_video.evaluation.zero_shot import NUM_LISTED
from coca_video.metrics.ranking import both_ways, ranks_in_tiles

CHUNK = 256  # clips whose nearest texts are looked for at a time


class Texts(str, Enum):
    first = "first"  # one a clip (MSR-VTT 1K-A)
    all = "all"  # each of them; any is right for its clip (COCO, MSR-VTT full)
    joined = "joined"  # one a clip, made of all (paragraph retrieval)


@dataclass
class RetrievalConfig:
    texts: Texts = Texts.first
    max_texts: int = 0  # of a clip, the first ones; 0 = no limit
    subset: str = ""  # see selection.Evaluated.select
    dual_softmax: bool = True  # figures of their own beside the plain ones

    def __post_init__(self) -> None:
        if self.max_texts < 0:
            raise ValueError(f"max_texts must not be negative, got {self.max_texts}")


def retrieve(
    subject: Subject, evaluated: Evaluated, config: RetrievalConfig, *, lead: str
) -> tuple[dict, dict[int, dict]]:
    """Figures of every reading; dual softmax and what is said of single clips are of the reading `lead`."""
    chosen = evaluated.select(config.subset)
    texts_of = [clip_texts(record, config) for record in chosen.records]
    texts = [text for each in texts_of for text in each]
    groups = torch.arange(len(texts_of))
    text_groups = groups.repeat_interleave(torch.tensor([len(each) for each in texts_of]))
    embedded = _encoded(subject, texts)
    clips = {
        reading: _one_view(evaluated.features.embeddings[reading][chosen.rows])
        for reading in subject.readings
    }
    which = {"video_groups": groups, "text_groups": text_groups}
    figures = chosen.counts() | {
        "num_texts": len(texts),
        "num_texts_listed": sum(len(record.texts) for record in chosen.records),
        "texts": config.texts.value,
        "max_texts": config.max_texts,
        "figures": {reading: both_ways(each, embedded, **which) for reading, each in clips.items()},
    }
    if config.dual_softmax:
        scale = subject.scale
        figures["dual_softmax"] = {lead: both_ways(clips[lead], embedded, **which, dual_softmax=scale)}
        figures["dual_softmax_scale"] = scale
    rank = ranks_in_tiles(clips[lead], embedded, query_groups=groups, candidate_groups=text_groups) + 1
    nearest = _nearest(clips[lead], embedded, texts)
    listed = {
        i: {"nearest_texts": near, "rank": place}
        for i, near, place in zip(chosen.indices, nearest, rank.tolist())
    }
    return figures, listed


def clip_texts(record: ClipRecord, config: RetrievalConfig) -> list[str]:
    texts = record.texts[: config.max_texts or None]
    return {Texts.first: texts[:1], Texts.all: texts, Texts.joined: [" ".join(texts)]}[config.texts]


def _encoded(subject: Subject, texts: list[str]) -> Tensor:
    """Equal texts share one embedding, so that they tie: another batch may round otherwise."""
    numbers = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    return subject.encode_texts(list(numbers))[[numbers[text] for text in texts]]


def _one_view(embeddings: Tensor) -> Tensor:
    """'n views e' -> unit 'n e'; a single view as it is."""
    return embeddings[:, 0] if embeddings.shape[1] == 1 else F.normalize(embeddings.mean(dim=1), dim=-1)


def _nearest(clips: Tensor, embedded: Tensor, texts: list[str]) -> list[list[list]]:
    """For each clip its most similar texts with their similarity."""
    found = []
    for rows in clips.split(CHUNK):
        values, indices = (rows @ embedded.T).topk(min(NUM_LISTED, len(texts)))
        pairs = zip(indices.tolist(), values.tolist())
        found += [[[texts[i], value] for i, value in zip(*pair)] for pair in pairs]
    return found
