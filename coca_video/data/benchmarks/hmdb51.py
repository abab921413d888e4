"""HMDB51: 6,766 videos of 51 actions, in three official splits (Kuehne et al., ICCV 2011).

    testTrainMulti_7030_splits/brush_hair_test_split1.txt
        April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1
    hmdb51_org/brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi

Behind a file name stands 1 for training, 2 for test, 0 for neither. Each split has 70 training and 30 test
videos of every class; results are often the mean over the three. "all" is every video that the lists name.
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
from coca_video.data.tables import read_words
from coca_video.errors import InputError

NAME = "hmdb51"
NUM_TRAIN, NUM_TEST = 51 * 70, 51 * 30
SPLITS = {
    "train1": NUM_TRAIN,
    "test1": NUM_TEST,
    "train2": NUM_TRAIN,
    "test2": NUM_TEST,
    "train3": NUM_TRAIN,
    "test3": NUM_TEST,
    "all": 6766,
}
MARKS = {"train": ("1",), "test": ("2",), "all": ("0", "1", "2")}


def read(files: Files, split: str) -> Listing:
    """The lists of one split. Raises InputError for what is not as above, and if no video at all is there."""
    need_split(split, SPLITS)
    part, number = ("all", "1") if split == "all" else (split[:-1], split[-1])
    ending = f"_test_split{number}.txt"
    lists = files.annotations(f"*{ending}", f"testTrainMulti_7030_splits/*{ending}", f"*/*{ending}")
    labels = Labels(NAME)
    names = {path: labels.name_of(path.name.removesuffix(ending), where=str(path)) for path in lists}
    records = [record for path in lists for record in _records(path, names[path], ending, MARKS[part])]
    records, notes = without_repeats(records, where=lists[0].parent)
    media = MediaIndex(files.media, suffixes=VIDEO_SUFFIXES)
    found, missing = split_found(records, [labels.find(media, each.id, each.text) for each in records])
    need_found(found, missing, folder=files.media, where=lists[0].parent, example="{}.avi")
    notes += labels.notes_on(set(names.values()), where=lists[0].parent)
    return Listing(found, missing, lists, classes=labels.names, notes=notes)


def _records(path: Path, name: str, ending: str, marks: tuple[str, ...]) -> list[ClipRecord]:
    """The videos of one class that bear one of the marks."""
    records = []
    for line in read_words(path, 2):
        file, mark = line
        if mark not in MARKS["all"]:
            raise InputError(f"{line.where}: expected 0, 1 or 2 behind the file name, found {mark!r}")
        if mark in marks:
            folder = path.name.removesuffix(ending)
            records.append(class_record(f"{folder}/{without_ending(file)}", name))
    return records


SETS = (
    PublicSet(
        name=NAME,
        title="HMDB51",
        layout="testTrainMulti_7030_splits/CLASS_test_split{1,2,3}.txt and hmdb51_org/CLASS/*.avi",
        splits=SPLITS,
        read=read,
    ),
)
