"""UCF101: 13,320 videos of 101 actions, in three official splits (Soomro et al., arXiv:1212.0402).

    ucfTrainTestlist/classInd.txt        1 ApplyEyeMakeup
    ucfTrainTestlist/trainlist01.txt     ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1
    ucfTrainTestlist/testlist01.txt      ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi
    UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi

Lists 01 to 03 are the splits; results are often the mean over the three. "all" is the whole data set.
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
from coca_video.data.tables import Fields, read_words
from coca_video.errors import InputError

NAME = "ucf101"
SPLITS = {
    "train1": 9537,
    "test1": 3783,
    "train2": 9586,
    "test2": 3734,
    "train3": 9624,
    "test3": 3696,
    "all": 13320,
}


def read(files: Files, split: str) -> Listing:
    """The lists of one split. Raises InputError for what is not as above, and if no video at all is there."""
    need_split(split, SPLITS)
    labels = Labels(NAME)
    index_file = _annotation(files, "classInd.txt")
    names = _class_names(index_file, labels)
    lists = [_annotation(files, name) for name in _list_names(split)]
    records = [_record(line, labels, names) for path in lists for line in read_words(path, 1, at_least=True)]
    records, notes = without_repeats(records, where=lists[0])
    media = MediaIndex(files.media, suffixes=VIDEO_SUFFIXES)
    found, missing = split_found(records, [_find(media, labels, record) for record in records])
    need_found(found, missing, folder=files.media, where=lists[0], example="{}.avi")
    notes += labels.notes_on(set(names.values()), where=index_file)
    return Listing(found, missing, [index_file, *lists], classes=labels.names, notes=notes)


def _list_names(split: str) -> list[str]:
    if split == "all":
        return ["trainlist01.txt", "testlist01.txt"]
    return [f"{split[:-1]}list0{split[-1]}.txt"]


def _annotation(files: Files, name: str) -> Path:
    return files.annotation(name, f"ucfTrainTestlist/{name}", f"*/{name}")


def _class_names(path: Path, labels: Labels) -> dict[str, str]:
    """The publisher's index, as written, to the class name."""
    lines = read_words(path, 2)
    return {index: labels.name_of(label, where=line.where) for line in lines for index, label in [line]}


def _record(line: Fields, labels: Labels, names: dict[str, str]) -> ClipRecord:
    """From `Class/v_Class_g01_c01.avi` with or without the class's index behind it."""
    folder = line[0].partition("/")[0]
    name = labels.name_of(folder, where=line.where)
    if len(line) > 1 and names.get(line[1]) != name:
        raise InputError(f"{line.where}: {folder!r} is not class {line[1]!r} of classInd.txt")
    return class_record(without_ending(line[0]), name)


def _find(media: MediaIndex, labels: Labels, record: ClipRecord) -> Path | None:
    """Copies differ in how the files of one class are spelt: v_HandStandPushups or v_HandstandPushups."""
    spellings = (
        record.id,
        record.id.replace("Stand", "stand"),
        record.id.replace("_Handstand", "_HandStand"),
    )
    return next(filter(None, (labels.find(media, each, record.text) for each in spellings)), None)


SETS = (
    PublicSet(
        name=NAME,
        title="UCF101",
        layout="ucfTrainTestlist/{classInd,trainlist01,testlist01,...}.txt and UCF-101/CLASS/*.avi",
        splits=SPLITS,
        read=read,
    ),
)
