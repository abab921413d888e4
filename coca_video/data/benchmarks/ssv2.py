"""Something-Something v2: 220,847 videos of 174 things done to objects (Goyal et al., arXiv:1706.04261).

    labels/labels.json        {"Approaching something with your camera": "0", ...}
    labels/train.json         [{"id": "78687", "label": "holding potato next to vicks vaporub bottle",
    labels/validation.json      "template": "Holding [something] next to [something]", ...}, ...]
    labels/test.json          [{"id": "1420"}, ...]
    labels/test-answers.csv   1420;Lifting something up completely without letting it drop down
    20bn-something-something-v2/78687.webm

An earlier release calls the files something-something-v2-train.json and so on. The class is the template
without its brackets; the text is the label, which names the objects (the class itself in the test split).
"""

from pathlib import Path

from coca_video.data.benchmarks.labels import Labels, class_record
from coca_video.data.benchmarks.listing import (
    VIDEO_SUFFIXES,
    Files,
    Listing,
    MediaIndex,
    MissingAnnotation,
    MissingLabels,
    PublicSet,
    need_found,
    need_split,
    split_found,
    without_repeats,
)
from coca_video.data.manifest import ClipRecord
from coca_video.data.tables import need_keys, read_fields, read_json
from coca_video.errors import InputError

NAME = "ssv2"
SPLITS = {"train": 168913, "val": 24777, "test": 27157}
FILE_NAMES = {"train": ("train",), "val": ("validation", "val"), "test": ("test",)}


def read(files: Files, split: str) -> Listing:
    """One split's list. Raises InputError for what is not as above, and if no video at all is there."""
    need_split(split, SPLITS)
    labels = Labels(NAME)
    index_file = _annotation(files, "labels.json")
    classes, notes = _classes(index_file, labels)
    table = _annotation(files, *(f"{name}.json" for name in FILE_NAMES[split]))
    annotations = [index_file, table]
    answers = {}
    if split == "test":
        annotations.append(_answers_file(files, table))
        answers = _answers(annotations[-1], labels)
    entries = enumerate(read_json(table, list), start=1)
    records = [_record(entry, labels, answers, where=f"{table}: entry {number}") for number, entry in entries]
    records, repeats = without_repeats(records, where=table)
    media = MediaIndex(files.media, suffixes=VIDEO_SUFFIXES)
    found, missing = split_found(records, [media.find(record.id) for record in records])
    need_found(found, missing, folder=files.media, where=table, example="{}.webm")
    return Listing(found, missing, annotations, classes=classes, notes=notes + repeats)


def _annotation(files: Files, *names: str) -> Path:
    spellings = [spelt for name in names for spelt in (name, f"something-something-v2-{name}")]
    return files.annotation(*(f"{folder}{name}" for name in spellings for folder in ("", "labels/", "*/")))


def _classes(path: Path, labels: Labels) -> tuple[list[str], list[str]]:
    """Names in the publisher's index order if the file holds all, in the usual order if not; and notes."""
    indices: dict[str, int] = {}
    for label, index in read_json(path).items():
        if not str(index).isdecimal():
            raise InputError(f"{path}: {label!r} needs an index, found {index!r}")
        indices[labels.name_of(label, where=str(path))] = int(index)
    if notes := labels.notes_on(indices.keys(), where=path):
        return labels.names, notes
    return sorted(indices, key=indices.__getitem__), []


def _answers_file(files: Files, table: Path) -> Path:
    try:
        return _annotation(files, "test-answers.csv")
    except MissingAnnotation as error:
        raise MissingLabels(
            f"{table}: this split has no labels without test-answers.csv beside it"
        ) from error


def _answers(path: Path, labels: Labels) -> dict[str, str]:
    """Class names by id."""
    rows = read_fields(path, 2, delimiter=";")
    return {row[0]: labels.name_of(row[1], where=row.where) for row in rows}


def _record(entry: object, labels: Labels, answers: dict[str, str], *, where: str) -> ClipRecord:
    entry = need_keys(entry, ["id"] if answers else ["id", "label", "template"], where=where)
    for key in ("id", "label", "template"):
        if not isinstance(entry.get(key, ""), str):
            raise InputError(f"{where}: {key} must be a string, found {entry[key]!r}")
    if not answers:
        record = class_record(entry["id"], labels.name_of(entry["template"], where=where))
        record.text = entry["label"].strip() or record.text
        return record
    if entry["id"] not in answers:
        raise InputError(f"{where}: test-answers.csv has no answer for {entry['id']!r}")
    return class_record(entry["id"], answers[entry["id"]])


SETS = (
    PublicSet(
        name=NAME,
        title="Something-Something v2",
        layout="labels/{labels,train,validation,test}.json and 20bn-something-something-v2/*.webm",
        splits=SPLITS,
        read=read,
    ),
)
