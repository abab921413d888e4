"""SNLI-VE (Xie et al. 2019): does a picture of Flickr30k entail a statement, contradict it, or neither?

    snli_ve_test.jsonl
        {"Flickr30K_ID": "2861100960", "sentence2": "A man rides a bike.", "gold_label": "entailment",
         "pairID": "2861100960.jpg#1r1e", ...}
    flickr30k_images/2861100960.jpg

The picture takes the place of the premise, which is one of its captions; `sentence2` is the statement.
"""

from collections.abc import Iterable
from pathlib import Path

from coca_video.data.benchmarks.listing import Files, Listing, MediaIndex, PublicSet, need_split
from coca_video.data.benchmarks.picture_sets import listing_of, need_id, need_text
from coca_video.data.manifest import ClipRecord
from coca_video.data.pictures import PICTURE_SUFFIXES
from coca_video.data.tables import read_json_lines
from coca_video.errors import InputError

SPLITS = {"train": 529_527, "dev": 17_858, "test": 17_901}
RELATIONS = ("entailment", "neutral", "contradiction")
UNDECIDED = "-"  # annotators did not agree
PICTURE_KEYS = ("Flickr30K_ID", "Flickr30kID", "Flikr30kID")  # as releases differ


def read(files: Files, split: str) -> Listing:
    need_split(split, SPLITS)
    name = f"snli_ve_{split}.jsonl"
    path = files.annotation(name, f"*/{name}", f"**/{name}")
    entries = read_json_lines(path, ["sentence2", "gold_label", "pairID"])
    undecided = [str(entry["pairID"]) for entry in entries if entry["gold_label"] == UNDECIDED]
    records = [_record(entry, where=entry.where) for entry in entries if entry["gold_label"] != UNDECIDED]
    media = MediaIndex(files.media, suffixes=PICTURE_SUFFIXES)
    return listing_of(
        records,
        lambda record: media.find(record.path.name),
        files=files,
        annotations=[path],
        example=lambda record: record.path.name,
        notes=_note(path, undecided),
    )


def _record(entry: dict, *, where: str) -> ClipRecord:
    text = need_text(entry["sentence2"], where=f"{where}: sentence2")
    if (relation := entry["gold_label"]) not in RELATIONS:
        raise InputError(f"{where}: gold_label is {relation!r}, expected one of {', '.join(RELATIONS)}")
    id = need_id(entry["pairID"], where=f"{where}: pairID")
    return ClipRecord(Path(_picture(entry, where=where)), text, {"relation": relation}, id)


def _picture(entry: dict, *, where: str) -> str:
    found = [entry[key] for key in PICTURE_KEYS if key in entry]
    if not found:
        raise InputError(f"{where}: lacks the picture's id; it may be called {', '.join(PICTURE_KEYS)}")
    return need_id(found[0], where=where).removesuffix(".jpg") + ".jpg"


def _note(path: Path, undecided: Iterable[str]) -> list[str]:
    undecided = list(undecided)
    if not undecided:
        return []
    return [
        f"{path}: {len(undecided)} without a label ({UNDECIDED}) are left out: {', '.join(undecided[:5])}"
    ]


SETS = (
    PublicSet(
        name="snli_ve",
        title="SNLI-VE",
        layout="snli_ve_{train,dev,test}.jsonl; flickr30k_images/ with pictures",
        splits=SPLITS,
        read=read,
    ),
)
