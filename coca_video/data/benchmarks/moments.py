"""Moments in Time: a million videos of three seconds, 339 actions (Monfort et al., arXiv:1801.03150).

    moments_categories.txt      clapping,0
    trainingSet.csv             adult+female+singing/yt-0P3XG_vf91c_35.mp4,adult+female+singing,3,1
    validationSet.csv           (no header: file, label, how many annotators agree, how many do not)
    training/adult+female+singing/yt-0P3XG_vf91c_35.mp4
    validation/...

Version 2 has 305 of these classes.
"""

from pathlib import Path

from coca_video.data.benchmarks.labels import Labels, class_record
from coca_video.data.benchmarks.listing import (
    VIDEO_SUFFIXES,
    Files,
    Listing,
    MediaIndex,
    PublicSet,
    need_found,
    need_split,
    split_found,
    without_ending,
    without_repeats,
)
from coca_video.data.manifest import ClipRecord
from coca_video.data.tables import Fields, read_fields
from coca_video.errors import InputError

NAME = "moments"
SPLITS = {"train": 802264, "val": 33900}
NUM_CLASSES = {339: "version 1", 305: "version 2"}
TABLES = {"train": "trainingSet.csv", "val": "validationSet.csv"}
FOLDERS = {"train": "training", "val": "validation"}


def read(files: Files, split: str) -> Listing:
    """One split's table. Raises InputError for what is not as above, and if no video at all is there."""
    need_split(split, SPLITS)
    labels = Labels(NAME)
    index_file = _annotation(files, "moments_categories.txt")
    classes, notes = _classes(index_file, labels)
    table = _annotation(files, TABLES[split])
    allowed = set(classes)
    records = [_record(row, labels, allowed) for row in read_fields(table, 2, at_least=True)]
    records, repeats = without_repeats(records, where=table)
    folder = files.media / FOLDERS[split]
    media = MediaIndex(folder if folder.is_dir() else files.media, suffixes=VIDEO_SUFFIXES)
    found, missing = split_found(records, [labels.find(media, each.id, each.text) for each in records])
    need_found(found, missing, folder=files.media, where=table, example="{}.mp4")
    return Listing(found, missing, [index_file, table], classes=classes, notes=notes + repeats)


def _annotation(files: Files, name: str) -> Path:
    return files.annotation(name, f"annotations/{name}", f"*/{name}")


def _classes(path: Path, labels: Labels) -> tuple[list[str], list[str]]:
    """Names in the publisher's index order if the file holds a version's, all names if not; and notes."""
    indices: dict[str, int] = {}
    for row in read_fields(path, 2):
        if not row[1].isdecimal():
            raise InputError(f"{row.where}: {row[0]!r} needs an index, found {row[1]!r}")
        indices[labels.name_of(row[0], where=row.where)] = int(row[1])
    if len(indices) not in NUM_CLASSES:
        return labels.names, labels.notes_on(indices.keys(), where=path)
    notes = [] if len(indices) == 339 else [f"{path}: holds the {len(indices)} classes of version 2"]
    return sorted(indices, key=indices.__getitem__), notes


def _record(row: Fields, labels: Labels, classes: set[str]) -> ClipRecord:
    name = labels.name_of(row[1], where=row.where)
    if name not in classes:
        raise InputError(f"{row.where}: {row[1]!r} is not in moments_categories.txt")
    return class_record(without_ending(row[0]), name)


SETS = (
    PublicSet(
        name=NAME,
        title="Moments in Time",
        layout="{training,validation}Set.csv, moments_categories.txt and {training,validation}/CLASS/*.mp4",
        splits=SPLITS,
        read=read,
    ),
)
