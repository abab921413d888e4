"""MSR-VTT (Xu et al., CVPR 2016): 10,000 videos with 20 sentences each, in three partitions.

    MSRVTT_data.json              {"videos": [{"video_id": "video0", "split": "train", "start time": 137.72}],
                                   "sentences": [{"video_id": "video2960", "caption": "a cartoon ...", ...}]}
      or train_val_videodatainfo.json and test_videodatainfo.json, of the same form
    MSRVTT_train.9k.csv           video_id
    MSRVTT_train.7k.csv           video_id
    MSRVTT_JSFUSION_test.csv      key,vid_key,video_id,sentence
    videos/video0.mp4

- msrvtt_1ka, the partition of JSFusion (Yu et al., ECCV 2018): test videos have one sentence each, training
  videos all of theirs. The list of the 9,000 may also be train_list_jsfusion.txt, one id a line.
- msrvtt_1kb, the partition of Miech et al. (arXiv 1804.02516): its lists are train_list_miech.txt and
  test_list_miech.txt, one id a line, or MSRVTT_train.1kB.csv and MSRVTT_MIECH_test.csv (or
  MSRVTT_1kB_test.csv) with columns as above. A test list without sentences takes the first sentence of each
  video, as Miech et al. do.
- msrvtt_full, the publisher's own: every video with all its sentences; a query is right if any of them is.

Files are cut to the clips already: the times are those of the videos they were cut from.
"""

from pathlib import Path

from coca_video.data.benchmarks.listing import Files, Listing, PublicSet, need_split, without_ending
from coca_video.data.benchmarks.video_texts import (
    annotation,
    need_id,
    need_text,
    optional_annotation,
    read_names,
    video_listing,
)
from coca_video.data.manifest import ClipRecord
from coca_video.data.tables import need_keys, read_json, read_rows
from coca_video.errors import InputError

DATA = ("MSRVTT_data.json", "train_val_videodatainfo.json", "test_videodatainfo.json")
TRAIN_LISTS = {
    "1ka": {
        "train": ("MSRVTT_train.9k.csv", "train_list_jsfusion.txt"),
        "train_7k": ("MSRVTT_train.7k.csv",),
    },
    "1kb": {"train": ("MSRVTT_train.1kB.csv", "train_list_miech.txt")},
}
TEST_LISTS = {
    "1ka": ("MSRVTT_JSFUSION_test.csv",),
    "1kb": ("MSRVTT_MIECH_test.csv", "MSRVTT_1kB_test.csv", "test_list_miech.txt"),
}
FULL_SPLITS = {"train": ("train",), "val": ("validate", "val", "validation"), "test": ("test",)}


def read_1ka(files: Files, split: str) -> Listing:
    """Splits train (9,000 videos), train_7k and test."""
    return _read_by_lists(files, split, "1ka")


def read_1kb(files: Files, split: str) -> Listing:
    """Splits train and test."""
    return _read_by_lists(files, split, "1kb")


def read_full(files: Files, split: str) -> Listing:
    """Splits train, val and test, each with all sentences."""
    need_split(split, FULL_SPLITS)
    paths = _data_files(files)
    sentences = _sentences(paths)
    names = _videos(paths, FULL_SPLITS[split])
    return video_listing(_described(names, sentences, where=paths[0]), files, annotations=paths)


def _read_by_lists(files: Files, split: str, partition: str) -> Listing:
    train_lists = TRAIN_LISTS[partition]
    need_split(split, [*train_lists, "test"])
    path = annotation(files, *(TEST_LISTS[partition] if split == "test" else train_lists[split]))
    if split == "test" and path.suffix == ".csv":
        return video_listing(_one_sentence_each(path), files, annotations=[path])
    paths = _data_files(files)
    records, notes = _described(read_names(path), _sentences(paths), where=path), []
    if split == "test":
        notes = [f"{path}: has no sentences; each video has the first one of {paths[0].name}"]
        for record in records:
            record.more_texts = []
    return video_listing(records, files, annotations=[path, *paths], notes=notes)


def _one_sentence_each(path: Path) -> list[ClipRecord]:
    rows = read_rows(path, ["video_id", "sentence"])
    names = [without_ending(need_id(row["video_id"], where=row.where)) for row in rows]
    return [ClipRecord(Path(name), row["sentence"], id=name) for name, row in zip(names, rows)]


def _data_files(files: Files) -> list[Path]:
    """The one file of all videos, or what there is of the publisher's two."""
    whole, *parts = DATA
    if path := optional_annotation(files, whole):
        return [path]
    paths = [path for name in parts if (path := optional_annotation(files, name))]
    return paths or [annotation(files, *DATA)]


def _sentences(paths: list[Path]) -> dict[str, list[str]]:
    """All sentences of every video, in the order of the files."""
    sentences: dict[str, list[str]] = {}
    for path in paths:
        for entry, where in _entries(path, "sentences", keys=("video_id", "caption")):
            name = need_id(entry["video_id"], where=where)
            sentences.setdefault(name, []).append(need_text(entry["caption"], where=where))
    return sentences


def _videos(paths: list[Path], spellings: tuple[str, ...]) -> list[str]:
    """Ids of the videos of a split."""
    return [
        need_id(entry["video_id"], where=where)
        for path in paths
        for entry, where in _entries(path, "videos", keys=("video_id", "split"))
        if entry["split"] in spellings
    ]


def _entries(path: Path, part: str, *, keys: tuple[str, ...]) -> list[tuple[dict, str]]:
    """The objects of one of a data file's lists, each with where it stands."""
    entries = need_keys(read_json(path), [part], where=str(path))[part]
    if not isinstance(entries, list):
        raise InputError(f"{path}: {part} must be a list, found {str(entries)[:60]!r}")
    places = [f"{path}: {part}[{number}]" for number in range(len(entries))]
    return [(need_keys(entry, keys, where=where), where) for entry, where in zip(entries, places)]


def _described(names: list[str], sentences: dict[str, list[str]], *, where: Path) -> list[ClipRecord]:
    if unknown := [name for name in names if name not in sentences]:
        raise InputError(f"{where}: {unknown[0]!r} has no sentence in what is here of {', '.join(DATA)}")
    return [
        ClipRecord(Path(name), text, id=name, more_texts=more)
        for name in names
        for text, *more in [sentences[name]]
    ]


LAYOUT = "MSRVTT_data.json (or *_videodatainfo.json), videos video<n>.mp4"
SETS = (
    PublicSet(
        "msrvtt_1ka",
        "MSR-VTT, 1K-A partition",
        f"{LAYOUT}; MSRVTT_JSFUSION_test.csv, MSRVTT_train.9k.csv, MSRVTT_train.7k.csv",
        {"train": 9000, "train_7k": 7010, "test": 1000},
        read_1ka,
    ),
    PublicSet(
        "msrvtt_1kb",
        "MSR-VTT, 1K-B partition",
        f"{LAYOUT}; train_list_miech.txt, MSRVTT_MIECH_test.csv or test_list_miech.txt",
        {"train": 6656, "test": 1000},
        read_1kb,
    ),
    PublicSet(
        "msrvtt_full",
        "MSR-VTT, the publisher's partition",
        LAYOUT,
        {"train": 6513, "val": 497, "test": 2990},
        read_full,
    ),
)
