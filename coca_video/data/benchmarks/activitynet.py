"""ActivityNet Captions (Krishna et al., ICCV 2017): long videos, each told in timed sentences.

    train.json, val_1.json, val_2.json     {"v_QOlSCBRmfWY": {"duration": 82.73,
                                             "timestamps": [[0.83, 19.86], [17.37, 60.81], ...],
                                             "sentences": ["A young woman ...", " The girl dances ...", ...]}}
    videos/v_QOlSCBRmfWY.mp4               of any video format, with or without "v_"

The splits train, val_1 and val_2 are for paragraph retrieval (Zhang et al., ECCV 2018): a video and its
sentences joined by blanks, in the file's order as others read it, which is not always that of time. val_1 is
what papers evaluate; val_2 tells most of the same videos anew. The splits train_segments, val_1_segments and
val_2_segments have a record for each sentence, with its span: captioning and localisation use them. Some
spans are written backwards.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from coca_video.data.benchmarks.listing import Files, Listing, PublicSet, need_split
from coca_video.data.benchmarks.video_texts import (
    annotation,
    need_span,
    need_texts,
    video_listing,
    without_empty_spans,
)
from coca_video.data.manifest import ClipRecord
from coca_video.data.tables import need_keys, read_json
from coca_video.errors import InputError

SPLITS = {
    "train": 10009,
    "val_1": 4917,
    "val_2": 4885,
    "train_segments": 37421,
    "val_1_segments": 17505,
    "val_2_segments": 17031,
}
SEGMENTS = "_segments"

Story = list[tuple[list[float], str]]  # of a video: spans and sentences, as listed


def read(files: Files, split: str) -> Listing:
    """Paragraphs, or single sentences for a split that ends in "_segments"."""
    need_split(split, SPLITS)
    path = annotation(files, f"{split.removesuffix(SEGMENTS)}.json")
    if split.endswith(SEGMENTS):
        turned, notes = _turned_round(_segments(path), where=path)
        records, empty = without_empty_spans(turned, where=path)
        notes += empty
    else:
        records, notes = _paragraphs(path), []
    return video_listing(records, files, annotations=[path], notes=notes, spellings=_spellings)


def _paragraphs(path: Path) -> Iterator[ClipRecord]:
    for name, story in _stories(path):
        yield ClipRecord(Path(name), " ".join(sentence for _, sentence in story if sentence), id=name)


def _segments(path: Path) -> Iterator[ClipRecord]:
    for name, story in _stories(path):
        for number, (span, sentence) in enumerate(story):
            yield ClipRecord(Path(name), sentence, id=f"{name}_{number}", span=span)


def _turned_round(records: Iterable[ClipRecord], *, where: Path) -> tuple[list[ClipRecord], list[str]]:
    """Spans from their earlier end to their later, and a note on those that were not."""
    kept, ids = [], []
    for record in records:
        if record.span[0] > record.span[1]:
            ids.append(record.id)
        kept.append(replace(record, span=sorted(record.span)))
    return kept, [f"{where}: {len(ids)} spans written backwards: {', '.join(ids[:5])}"] if ids else []


def _stories(path: Path) -> Iterator[tuple[str, Story]]:
    for name, entry in read_json(path).items():
        where = f"{path}: {name}"
        need_keys(entry, ("timestamps", "sentences"), where=where)
        sentences = need_texts(entry["sentences"], where=f"{where}: sentences")
        spans = entry["timestamps"]
        if not isinstance(spans, list) or len(spans) != len(sentences):
            raise InputError(f"{where}: timestamps must be a list of {len(sentences)}, one a sentence")
        yield name, [(need_span(span, where=where), text) for span, text in zip(spans, sentences)]


def _spellings(name: str) -> tuple[str, ...]:
    return name, name.removeprefix("v_"), f"v_{name}"


SETS = (
    PublicSet(
        "activitynet",
        "ActivityNet Captions",
        "train.json, val_1.json, val_2.json, videos v_<YouTube id>.mp4",
        SPLITS,
        read,
    ),
)
