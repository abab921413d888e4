"""ImageNet (Russakovsky et al. 2015), and sets that test its classes on other pictures. One folder a class.

    imagenet         train/n01440764/n01440764_18.JPEG, val/n01440764/ILSVRC2012_val_00000293.JPEG
    imagenet_v2      imagenetv2-matched-frequency-format-val/7/0a1b2c.jpeg: class 7 (Recht et al. 2019)
    imagenet_a       imagenet-a/n01498041/0.000116_digital clock _ digital clock_0.86.jpg (Hendrycks et al.)
    imagenet_r       imagenet-r/n01443537/art_0.jpg (Hendrycks et al., both 2021)
    imagenet_sketch  sketch/n01440764/sketch_0.JPEG (Wang et al. 2019)

Classes are named as CLIP names them, twice with one name for two: the label "class" holds WordNet ids.
ImageNet-A and -R are tests among their own 200. No file lists the pictures: what is not on the disk shows
only in their number.
"""

import re
from collections import Counter
from functools import partial
from pathlib import Path

from coca_video.data.benchmarks.listing import Files, Listing, PublicSet, need_split
from coca_video.data.benchmarks.picture_sets import class_folders, pictures_in, subfolders
from coca_video.data.benchmarks.vocabulary import ClassList, class_list
from coca_video.data.manifest import ClipRecord
from coca_video.errors import InputError

WORDNET_ID = re.compile(r"n\d{8}")
SPLITS = {"train": r".*train.*", "val": r".*val.*"}  # patterns of their folders' names


def read_imagenet(files: Files, split: str) -> Listing:
    need_split(split, SPLITS)
    classes = class_list("imagenet")
    is_class = classes.index_of.__contains__
    folder = class_folders(files.media, is_class, called=SPLITS[split], example=classes.ids[0], must=True)
    return _listing(folder, classes)


def read_variant(files: Files, split: str, *, classes: str, folder: str) -> Listing:
    """A set of `test` pictures alone. classes: in `vocabulary`; folder: a pattern of the publisher's name."""
    need_split(split, ["test"])
    listed = class_list(classes)
    found = class_folders(files.media, listed.index_of.__contains__, called=folder, example=listed.ids[0])
    return _listing(found, listed)


def read_v2(files: Files, split: str) -> Listing:
    need_split(split, ["test"])
    classes = class_list("imagenet")
    folder = class_folders(files.media, _is_index, called=r".*matched[-_]frequency.*", example="0")
    by_index = {}
    for each in subfolders(folder):
        if each.name.isascii() and each.name.isdigit():
            if int(each.name) >= len(classes):
                raise InputError(f"{each}: is not a class; the folders are called 0 to {len(classes) - 1}")
            by_index[int(each.name)] = each
    return _listing_of_folders(folder, {classes.ids[index]: by_index[index] for index in by_index}, classes)


def _is_index(name: str) -> bool:
    return name.isascii() and name.isdigit() and int(name) < 1000


def _listing(folder: Path, classes: ClassList) -> Listing:
    """Of a folder whose sub-folders are called by WordNet ids."""
    found = {each.name: each for each in subfolders(folder) if WORDNET_ID.fullmatch(each.name)}
    if unknown := [name for name in found if name not in classes.index_of]:
        raise InputError(f"{folder / unknown[0]}: is none of the {len(classes)} classes of this set")
    return _listing_of_folders(folder, found, classes)


def _listing_of_folders(folder: Path, found: dict[str, Path], classes: ClassList) -> Listing:
    """The pictures of `found`, folders by WordNet ids, in the order of the classes."""
    records = [
        record
        for id in classes.ids
        if id in found
        for record in _records_of(found[id], name=classes.name_of[id], id=id)
    ]
    if not records:
        raise InputError(f"{folder}: there are no pictures in its {len(found)} folders of classes")
    notes = _notes(folder, records, classes)
    return Listing(records, [], [], classes=classes.names, class_ids=classes.ids, notes=notes)


def _records_of(folder: Path, *, name: str, id: str) -> list[ClipRecord]:
    return [
        ClipRecord(path, name, {"class": id}, id=f"{folder.name}/{path.name}") for path in pictures_in(folder)
    ]


def _notes(folder: Path, records: list[ClipRecord], classes: ClassList) -> list[str]:
    notes = []
    num_seen = len({record.labels["class"] for record in records})
    if num_seen < len(classes):
        notes.append(f"{folder}: holds {num_seen} of the {len(classes)} classes; all are kept as classes")
    if shared := [name for name, number in Counter(classes.names).items() if number > 1]:
        notes.append(f"names of two classes each, whose prompts are the same: {', '.join(shared)}")
    return notes


SETS = (
    PublicSet(
        name="imagenet",
        title="ImageNet (ILSVRC 2012)",
        layout="train/ and val/, each with folders n01440764, ... of pictures",
        splits={"train": 1_281_167, "val": 50_000},
        read=read_imagenet,
    ),
    PublicSet(
        name="imagenet_v2",
        title="ImageNet-V2, matched frequency",
        layout="imagenetv2-matched-frequency-format-val/ with folders 0 to 999 of pictures",
        splits={"test": 10_000},
        read=read_v2,
    ),
    PublicSet(
        name="imagenet_a",
        title="ImageNet-A",
        layout="imagenet-a/ with 200 folders n01498041, ... of pictures",
        splits={"test": 7_500},
        read=partial(read_variant, classes="imagenet_a", folder=r"imagenet[-_]?a"),
    ),
    PublicSet(
        name="imagenet_r",
        title="ImageNet-R",
        layout="imagenet-r/ with 200 folders n01443537, ... of pictures",
        splits={"test": 30_000},
        read=partial(read_variant, classes="imagenet_r", folder=r"imagenet[-_]?r"),
    ),
    PublicSet(
        name="imagenet_sketch",
        title="ImageNet-Sketch",
        layout="sketch/ with folders n01440764, ... of pictures",
        splits={"test": 50_889},
        read=partial(read_variant, classes="imagenet", folder=r".*sketch.*"),
    ),
)
