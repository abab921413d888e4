"""VATEX (Wang et al., ICCV 2019): ten seconds of a Kinetics-600 video with ten English captions.

    vatex_training_v1.0.json               [{"videoID": "Ptf_2VRj-V0_000122_000132",
    vatex_validation_v1.0.json               "enCap": [ten captions], "chCap": [ten captions in Chinese]}]
    vatex_public_test_english_v1.1.json    the same without "chCap"
    videos/Ptf_2VRj-V0_000122_000132.mp4   or with the times not padded, or the YouTube id alone

The public test set was first given out without captions (vatex_public_test_without_annotations.json): no use
here. Retrieval papers halve the validation set instead (HGR: Chen et al., CVPR 2020): the splits
val_retrieval and test_retrieval, 1,500 each, take their ids from val_list.txt and test_list.txt, one a line,
or val_names.npy and tst_names.npy as HGR gives them, and their captions from the validation file.
"""

from pathlib import Path

import numpy as np

from coca_video.data.benchmarks.listing import (
    Files,
    Listing,
    MissingLabels,
    PublicSet,
    need_split,
    without_ending,
)
from coca_video.data.benchmarks.video_texts import (
    annotation,
    need_id,
    need_texts,
    read_names,
    video_listing,
)
from coca_video.data.manifest import ClipRecord
from coca_video.data.tables import need_keys, read_json
from coca_video.errors import InputError

SPLITS = {"train": 25991, "val": 3000, "test": 6000, "val_retrieval": 1500, "test_retrieval": 1500}
CAPTIONS = {
    "train": ("vatex_training*.json",),
    "val": ("vatex_validation*.json",),
    "test": ("vatex_public_test_english*.json", "vatex_public_test*.json"),
}
LISTS = {
    "val_retrieval": ("val_list.txt", "val_names.npy"),
    "test_retrieval": ("test_list.txt", "tst_names.npy"),
}


def read(files: Files, split: str) -> Listing:
    """Clips with their English captions, the publisher's or HGR's splits."""
    need_split(split, SPLITS)
    if split in LISTS:
        list_path = annotation(files, *LISTS[split])
        path = annotation(files, *CAPTIONS["val"])
        records = _choose(_read_captions(path), _read_ids(list_path), where=list_path)
        annotations = [list_path, path]
    else:
        path = annotation(files, *CAPTIONS[split])
        records, annotations = _read_captions(path), [path]
    listing = video_listing(records, files, annotations=annotations, spellings=_spellings)
    listing.notes += _note_whole_videos(listing.records, where=files.media)
    return listing


def _read_captions(path: Path) -> list[ClipRecord]:
    records = []
    for number, entry in enumerate(read_json(path, list)):
        where = f"{path}: entry {number}"
        name = need_id(need_keys(entry, ("videoID",), where=where)["videoID"], where=where)
        if not entry.get("enCap"):
            raise MissingLabels(f"{where}: {name} has no captions (enCap); this file is of no use here")
        text, *more = need_texts(entry["enCap"], where=f"{where}: enCap")
        records.append(ClipRecord(Path(name), text, id=name, more_texts=more))
    return records


def _read_ids(path: Path) -> list[str]:
    if path.suffix != ".npy":
        return read_names(path)
    try:
        names = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is not an array of texts; give a list of ids, one a line") from error
    return [without_ending(str(name)) for name in names.reshape(-1)]


def _choose(records: list[ClipRecord], ids: list[str], *, where: Path) -> list[ClipRecord]:
    by_id = {record.id: record for record in records}
    if unknown := [name for name in ids if name not in by_id]:
        raise InputError(f"{where}: {unknown[0]!r} is not in the validation file")
    return [by_id[name] for name in ids]


def _spellings(name: str) -> tuple[str, ...]:
    """As Kinetics names its clips, with the times not padded, and the YouTube id alone."""
    youtube_id, *times = name.rsplit("_", 2)
    if len(times) < 2 or not all(time.isdecimal() for time in times):
        return (name,)
    return name, "_".join([youtube_id, *(str(int(time)) for time in times)]), youtube_id


def _note_whole_videos(records: list[ClipRecord], *, where: Path) -> list[str]:
    number = sum(record.path.stem == _spellings(record.id)[-1] != record.id for record in records)
    if not number:
        return []
    return [f"{where}: {number} files bear a YouTube id alone; they are taken as cut to the clip already"]


SETS = (
    PublicSet(
        "vatex",
        "VATEX",
        "vatex_training_v1.0.json, vatex_validation_v1.0.json, vatex_public_test_english_v1.1.json, "
        "val_list.txt and test_list.txt for retrieval, videos <YouTube id>_<start>_<end>.mp4",
        SPLITS,
        read,
    ),
)
