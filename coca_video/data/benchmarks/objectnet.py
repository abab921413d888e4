"""ObjectNet (Barbu et al. 2019), the part of it that shares classes with ImageNet.

    images/air_freshener/0a1b2c3d4e5f6a7.png
    mappings/folder_to_objectnet_label.json    {"alarm_clock": "Alarm clock", ...}: all 313 folders
    mappings/objectnet_to_imagenet_1k.json     {"Alarm clock": "analog clock; digital clock", ...}: 113
    mappings/pytorch_to_imagenet_2012_id.json  {"409": 12, ...}: class -> line of the next file, from 0
    mappings/imagenet_to_label_2012_v2         ImageNet's labels, one a line: analog clock

The 113 classes are named as CLIP names the ImageNet class. Where several ImageNet classes are one of
ObjectNet's, or one name would stand for two, ObjectNet's own label is the name.
"""

from collections import Counter
from pathlib import Path

from coca_video.data.benchmarks.labels import class_record
from coca_video.data.benchmarks.listing import Files, Listing, PublicSet, need_split
from coca_video.data.benchmarks.picture_sets import (
    class_folders,
    need_number,
    need_text,
    pictures_in,
    subfolders,
)
from coca_video.data.benchmarks.vocabulary import class_list
from coca_video.data.manifest import ClipRecord
from coca_video.data.tables import read_json, read_text
from coca_video.errors import InputError

NUM_CLASSES = 113
BORDER = "the publisher's files have a red border; evaluations cut 2 pixels off each side, here it is left"
MAPPINGS = (
    "folder_to_objectnet_label.json",
    "objectnet_to_imagenet_1k.json",
    "pytorch_to_imagenet_2012_id.json",
    "imagenet_to_label_2012_v2*",
)


def read(files: Files, split: str) -> Listing:
    need_split(split, ["test"])
    mappings = [files.annotation(name, f"mappings/{name}", f"**/mappings/{name}") for name in MAPPINGS]
    labels_by_folder = _read_folders(mappings[0])
    names_by_label, notes = _class_names(*mappings[1:])
    folder = class_folders(
        files.media, labels_by_folder.__contains__, called="images", example="air_freshener"
    )
    records, num_outside = [], 0
    for each in subfolders(folder):
        if each.name not in labels_by_folder:
            raise InputError(f"{each}: is none of the {len(labels_by_folder)} folders of {mappings[0]}")
        if (label := labels_by_folder[each.name]) in names_by_label:
            records += _records_of(each, name=names_by_label[label])
        else:
            num_outside += 1
    if not records:
        raise InputError(
            f"{folder}: there are no pictures of the {len(names_by_label)} classes shared with ImageNet"
        )
    classes = _in_folder_order(names_by_label, labels_by_folder, where=mappings[1])
    notes += _notes(folder, records, classes, num_outside)
    return Listing(records, [], mappings, classes=classes, notes=notes)


def _read_folders(path: Path) -> dict[str, str]:
    return {
        folder: need_text(label, where=f"{path}: {folder!r}") for folder, label in read_json(path).items()
    }


def _class_names(overlap: Path, numbers: Path, imagenet_labels: Path) -> tuple[dict[str, str], list[str]]:
    """The class name of each ObjectNet label that is in ImageNet; a note on those that keep ObjectNet's."""
    clip_names = _clip_names(numbers, imagenet_labels)
    names = {}
    for label, joined in read_json(overlap).items():
        theirs = [each.strip() for each in need_text(joined, where=f"{overlap}: {label!r}").split(";")]
        if unknown := [each for each in theirs if each not in clip_names]:
            raise InputError(f"{overlap}: {label!r} names {unknown[0]!r}, which is not in {imagenet_labels}")
        names[label] = clip_names[theirs[0]] if len(theirs) == 1 else None
    shared = {name for name, number in Counter(names.values()).items() if number > 1}
    own = [label for label, name in names.items() if name is None or name in shared]
    notes = [f"{len(own)} classes are named by ObjectNet's label, as ImageNet has several: {', '.join(own)}"]
    return names | {label: _uncapitalised(label) for label in own}, notes if own else []


def _clip_names(numbers: Path, imagenet_labels: Path) -> dict[str, str]:
    """CLIP's names of ImageNet's classes by ImageNet's labels."""
    names = class_list("imagenet").names
    lines = [line.strip() for line in read_text(imagenet_labels).split("\n")]
    found = {}
    for index, line in read_json(numbers).items():
        line = need_number(line, where=f"{numbers}: {index!r}")
        index = need_number(index, where=str(numbers))
        if index >= len(names) or line >= len(lines):
            raise InputError(f"{numbers}: there is no class {index}, or no line {line} in {imagenet_labels}")
        found[lines[line]] = names[index]
    return found


def _uncapitalised(label: str) -> str:
    """ "Alarm clock" within a sentence; but "DVD player" and "T-shirt"."""
    return label[0].lower() + label[1:] if label[1:2].islower() else label


def _in_folder_order(
    names_by_label: dict[str, str], labels_by_folder: dict[str, str], *, where: Path
) -> list[str]:
    ordered = [labels_by_folder[folder] for folder in sorted(labels_by_folder)]
    if unknown := set(names_by_label) - set(ordered):
        raise InputError(f"{where}: {min(unknown)!r} is the label of no folder")
    return [names_by_label[label] for label in ordered if label in names_by_label]


def _records_of(folder: Path, *, name: str) -> list[ClipRecord]:
    records = []
    for path in pictures_in(folder):
        record = class_record(f"{folder.name}/{path.name}", name)
        record.path = path
        records.append(record)
    return records


def _notes(folder: Path, records: list[ClipRecord], classes: list[str], num_outside: int) -> list[str]:
    notes = [BORDER]
    if num_outside:
        notes.append(f"{folder}: {num_outside} folders are not in ImageNet and are left out")
    num_seen = len({record.text for record in records})
    if num_seen < len(classes):
        notes.append(f"{folder}: holds {num_seen} of the {len(classes)} classes; all are kept as classes")
    if len(classes) != NUM_CLASSES:
        notes.append(f"the mappings name {len(classes)} classes; the publisher's name {NUM_CLASSES}")
    return notes


SETS = (
    PublicSet(
        name="objectnet",
        title="ObjectNet, the classes shared with ImageNet",
        layout="images/ with folders air_freshener, ... of pictures; mappings/ as published",
        splits={"test": 18_574},
        read=read,
    ),
)
