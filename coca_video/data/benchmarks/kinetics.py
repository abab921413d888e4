"""Kinetics-400, -600 and -700: ten seconds each of human actions (Kay et al., arXiv:1705.06950, and after).

As CVDF distributes it (github.com/cvdfoundation/kinetics-dataset); of Kinetics-600 the .txt are complete:

    annotations/val.csv           label,youtube_id,time_start,time_end,split,is_cc
                                  "massaging person's head",-3B32lodo2M,59,69,val,0
    val/-3B32lodo2M_000059_000069.mp4
    replacement/replacement_for_corrupted_k400/...    clips that were damaged in train/, downloaded again

Other tables: lists such as mmaction2's, `massaging_persons_head/-3B32lodo2M_000059_000069.mp4 196` (the index
is that of the sorted labels, or of a file *labels.csv with the columns id and name), or without an index.
Videos may lie in val/LABEL/; without any table these folders are the listing. A file that is called by its
youtube id alone counts if the table has one clip of that id.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
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
    without_ending,
    without_repeats,
)
from coca_video.data.manifest import ClipRecord
from coca_video.data.tables import Row, read_rows, read_text
from coca_video.errors import InputError

# Lines of CVDF's CSVs. Kinetics-600 and -700 have had several releases of different sizes.
SIZES: dict[str, dict[str, int | None]] = {
    "kinetics400": {"train": 246534, "val": 19906, "test": 39805},
    "kinetics600": {"train": None, "val": None, "test": None},
    "kinetics700": {"train": None, "val": None, "test": None},
}
SPELLINGS = {"train": ("train",), "val": ("val", "validate", "validation"), "test": ("test",)}
COLUMNS = ("youtube_id", "time_start", "time_end")
REPLACEMENTS = ("replacement/replacement_for_corrupted_k400", "replacement_for_corrupted_k400")
OVERLAP = "the validation split of Kinetics-400 is largely part of the training split of Kinetics-700"


@dataclass
class Table:
    """What the annotation files list, in their order."""

    annotations: list[Path]
    records: list[ClipRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)  # id -> what its file may be called

    def add(self, record: ClipRecord, *names: str) -> None:
        self.records.append(record)
        self.names[record.id] = names


class Clips:
    """The videos of a split. A replacement is the same clip downloaded again, and wins over its original."""

    def __init__(self, files: Files, split: str):
        places = [files.media / f"{before}{name}" for name in SPELLINGS[split] for before in ("", "videos_")]
        self.own_folders = [place for place in places if place.is_dir()]
        self.folders = self.own_folders or [files.media]
        again = [place / name for place in (files.media, files.root) for name in REPLACEMENTS]
        self.originals = MediaIndex(*self.folders, suffixes=VIDEO_SUFFIXES)
        self.replacements = MediaIndex(*again, suffixes=VIDEO_SUFFIXES)
        self.num_replaced = 0

    def find(self, names: Iterable[str]) -> Path | None:
        names = list(names)
        if replacement := next(filter(None, map(self.replacements.find, names)), None):
            self.num_replaced += 1
            return replacement
        return next(filter(None, map(self.originals.find, names)), None)

    def notes(self) -> list[str]:
        if not self.num_replaced:
            return []
        return [f"clips read from {REPLACEMENTS[0]} in place of damaged originals: {self.num_replaced}"]


def read(files: Files, split: str, *, name: str) -> Listing:
    """A split's table, or its folders. Raises InputError for what is not as above, and without any video."""
    need_split(split, SIZES[name])
    labels, clips = Labels(name), Clips(files, split)
    path = _table_path(files, split, name)
    table = _read_table(path, labels, files) if path else _read_folders(files, split, clips, labels)
    where = path or clips.folders[0]
    records, repeats = without_repeats(table.records, where=where)
    found, missing = split_found(records, [clips.find(table.names[record.id]) for record in records])
    need_found(found, missing, folder=clips.folders[0], where=where, example="{}.mp4")
    absent = labels.notes_on({record.text for record in records}, where=where)
    notes = table.notes + repeats + clips.notes() + absent
    if (name, split) in (("kinetics400", "val"), ("kinetics700", "train")):
        notes.append(OVERLAP)
    return Listing(found, missing, table.annotations, classes=labels.names, notes=notes)


def _table_path(files: Files, split: str, name: str) -> Path | None:
    """Such as val.csv, kinetics_400_val.csv or kinetics400_val_list_videos.txt, in annotations/ or root."""
    endings = (".txt", ".csv") if name == "kinetics600" else (".csv", ".txt")
    patterns = [
        f"{folder}{pattern}"
        for ending in endings
        for spelling in SPELLINGS[split]
        for pattern in (f"{spelling}{ending}", f"*[0-9]_{spelling}{ending}", f"*_{spelling}_list*{ending}")
        for folder in ("annotations/", "")
    ]
    return _first(files, *patterns)


def _first(files: Files, *patterns: str) -> Path | None:
    try:
        return files.annotation(*patterns)
    except MissingAnnotation:
        return None


def _read_table(path: Path, labels: Labels, files: Files) -> Table:
    header = read_text(path).partition("\n")[0]
    if not any(column in header for column in COLUMNS):
        return _read_list(path, labels, files)
    table = _read_clips(path, labels, delimiter="\t" if "\t" in header else ",")
    if labels.set_name == "kinetics600" and path.suffix == ".csv" and path.stem != "test":
        table.notes.append(f"{path}: CVDF calls this CSV of Kinetics-600 incomplete; its .txt is not there")
    return table


def _read_clips(path: Path, labels: Labels, *, delimiter: str) -> Table:
    rows = read_rows(path, COLUMNS, delimiter=delimiter)
    if rows and "label" not in rows[0]:
        raise MissingLabels(f"{path}: this split has no labels; the table needs a column 'label'")
    clips = [(row["youtube_id"], _seconds(row, "time_start"), _seconds(row, "time_end")) for row in rows]
    num_clips_of = Counter(video for video, _, _ in set(clips))
    table = Table([path])
    for row, (video, start, end) in zip(rows, clips, strict=True):
        if not video:
            raise InputError(f"{row.where}: youtube_id is empty")
        id = f"{video}_{start:06d}_{end:06d}"
        names = (id, f"{video}_{start}_{end}", video)
        label = labels.name_of(row["label"], where=row.where)
        table.add(class_record(id, label), *names[: 3 if num_clips_of[video] == 1 else 2])
    return table


def _seconds(row: Row, column: str) -> int:
    """Whole seconds; some tables write them as 59.0."""
    try:
        return int(float(row[column]))
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"{row.where}: {column} must be a number of seconds, found {row[column]!r}"
        ) from error


def _read_list(path: Path, labels: Labels, files: Files) -> Table:
    """Lines `path index`, or `path` alone below a folder that is called as its class."""
    label_file = _label_file(files, labels)
    names_by_index = _names_by_index(label_file, labels)
    table = Table([path, *([label_file] if label_file else [])])
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            file, label = _listed(line.strip(), labels, names_by_index, where=f"{path}:{number}")
            table.add(class_record(without_ending(Path(file).name), label), file)
    return table


def _listed(line: str, labels: Labels, names_by_index: dict[str, str], *, where: str) -> tuple[str, str]:
    """Path and class name of one line."""
    file, space, index = line.rpartition(" ")
    if space and index.isdecimal():
        if index not in names_by_index:
            raise InputError(f"{where}: {index} is no index of the {len(names_by_index)} classes")
        return file.strip(), names_by_index[index]
    if "/" not in line:
        raise InputError(f"{where}: expected 'path index' or 'LABEL/file.mp4', found {line[:60]!r}")
    return line, labels.name_of(Path(line).parent.name, where=where)


def _label_file(files: Files, labels: Labels) -> Path | None:
    """Such as X-CLIP's kinetics_400_labels.csv."""
    number = labels.set_name.removeprefix("kinetics")
    names = (f"*{number}*labels.csv", "labels.csv")
    return _first(files, *(f"{folder}{name}" for name in names for folder in ("annotations/", "labels/", "")))


def _names_by_index(path: Path | None, labels: Labels) -> dict[str, str]:
    """By a label file with the columns id and name; without one the sorted labels count."""
    if path is None:
        return {str(index): name for index, name in enumerate(labels.names)}
    return {
        row["id"]: labels.name_of(row["name"], where=row.where) for row in read_rows(path, ("id", "name"))
    }


def _read_folders(files: Files, split: str, clips: Clips, labels: Labels) -> Table:
    """Every video of the split's folder below one that is called as its class."""
    videos = clips.originals.by_path if clips.own_folders else {}
    if not videos:
        wanted = f"videos such as {split}/LABEL/ID_000059_000069.mp4"
        raise MissingAnnotation(f"{files.media}: neither an annotation file nor {wanted}")
    where, table = clips.own_folders[0], Table([])
    for relative, path in videos.items():
        folder, slash, _ = relative.partition("/")
        if not slash:
            raise MissingLabels(
                f"{path}: no table says what this shows; expected annotations/*.csv or folders"
            )
        table.add(class_record(path.stem, labels.name_of(folder, where=str(path))), relative)
    table.notes.append(
        f"{where}: there is no table, its folders count; nothing tells which videos are missing"
    )
    return table


SETS = tuple(
    PublicSet(
        name=name,
        title=f"Kinetics-{name.removeprefix('kinetics')}",
        layout="annotations/{train,val,test}.csv and {train,val,test}/*.mp4, or {train,val}/LABEL/*.mp4",
        splits=sizes,
        read=partial(read, name=name),
    )
    for name, sizes in SIZES.items()
)
