"""Data of one's own, in two plain forms.

`folder`, of videos or pictures; the split is a sub-folder, or `all` for the whole folder:

    juggling/a.mp4, juggling/b.mp4, red_apple/c.png     folders of classes, "juggling" and "red apple"
    a.mp4, a.txt, more/b.png, more/b.txt                texts beside them, one a line, each of the whole file

`table`, a CSV, TSV, JSON lines or parquet file; the split is its path below the root, with or without ending:

    path,text,label
    clips/a.mp4,"a person juggling, outdoors",juggling

There has to be a column for the file, and one for its text or its class. COLUMNS has the names they may
have, in any case; `Files.columns` may give others. Paths are below the media folder, with or without ending,
or absolute. Rows of the same file are further texts of it, unless an id tells them apart.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from coca_video.data.benchmarks.labels import class_record
from coca_video.data.benchmarks.listing import (
    VIDEO_SUFFIXES,
    Files,
    Listing,
    MediaIndex,
    PublicSet,
    need_split,
)
from coca_video.data.benchmarks.picture_sets import listing_of, need_id, need_text, some_texts, subfolders
from coca_video.data.manifest import ClipRecord
from coca_video.data.pictures import PICTURE_SUFFIXES
from coca_video.data.tables import (
    Row,
    parquet_columns,
    read_json,
    read_json_lines,
    read_parquet,
    read_rows,
    read_text,
)
from coca_video.errors import InputError

WHOLE = "all"
ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
COLUMNS = {
    "path": (
        *("path", "file", "filename", "file_name", "filepath", "file_path"),
        *("video", "image", "picture", "video_path", "image_path", "video_id", "image_id", "url"),
    ),
    "text": ("text", "caption", "captions", "title", "sentence"),
    "label": ("label", "class", "class_name"),
    "id": ("id", "key"),
}


def read_folder(files: Files, split: str) -> Listing:
    """Classes by folders, or texts from the files beside; raises InputError if it is neither, or both."""
    folder = _split_folder(files.media, split)
    media = MediaIndex(folder).by_path
    texts = MediaIndex(folder, suffixes=[".txt"]).by_path
    if not media:
        raise InputError(f"{folder}: there are no videos or pictures")
    beside = {path: texts[text] for path in media if (text := _without_ending(path) + ".txt") in texts}
    if not beside:
        return _by_folders(folder, media)
    if len(beside) < len(media):
        without = next(path for path in media if path not in beside)
        found = f"{len(beside)} of {len(media)} files have a .txt beside them, {without} has none"
        raise InputError(f"{folder}: {found}; all need one, or none, for folders to be their classes")
    records = [_captioned(path, media[path], beside[path]) for path in media]
    return Listing(records, [], [])


def read_table(files: Files, split: str) -> Listing:
    path = _table(files.root, split)
    rows, columns = _read(path, files.columns)
    records = [_record(row, columns, where=row.where) for row in rows]
    if "id" not in columns:
        records = _joined(records, where=path)
    media = MediaIndex(files.media).by_path
    without_ending = {}
    for name, found in media.items():
        without_ending.setdefault(_without_ending(name), found)
    listing = listing_of(
        records,
        lambda record: _find(record.path, media, without_ending),
        files=files,
        annotations=[path],
        example=lambda record: str(record.path),
    )
    listing.classes = sorted({record.labels["class"] for record in records if "class" in record.labels})
    return listing


def _split_folder(media: Path, split: str) -> Path:
    if not media.is_dir():
        raise InputError(f"{media}: no such folder")
    if split != WHOLE:
        need_split(split, [WHOLE, *(folder.name for folder in subfolders(media))])
    return media if split == WHOLE else media / split


def _by_folders(folder: Path, media: dict[str, Path]) -> Listing:
    """Each file's class is the folder that it lies in."""
    records = []
    for name, path in media.items():
        inside, _, rest = name.partition("/")
        if not rest or "/" in rest:
            wanted = f"nor does it lie in a folder of its class, directly below {folder}"
            raise InputError(f"{path}: has no .txt beside it, {wanted}")
        record = class_record(name, inside.replace("_", " ").strip())
        record.path = path
        records.append(record)
    return Listing(records, [], [], classes=sorted({record.text for record in records}))


def _captioned(name: str, path: Path, text: Path) -> ClipRecord:
    first, *more = some_texts(read_text(text).split("\n"), where=str(text))
    return ClipRecord(path, first, id=name, more_texts=more)


def _table(root: Path, split: str) -> Path:
    """The one file that is called `split`, with or without its ending."""
    if (root / split).is_file():
        return root / split
    found = [path for ending in ENDINGS if (path := root / f"{split}{ending}").is_file()]
    if len(found) != 1:
        what = f"there are {', '.join(path.name for path in found)}" if found else f"there is no {split}"
        raise InputError(f"{root}: {what}; name one table, ending in {', '.join(ENDINGS)}")
    return found[0]


def _read(path: Path, given: dict[str, str]) -> tuple[list[Row], dict[str, str]]:
    """The rows of a table, and its columns by what they are: path, text, label, id."""
    ending = path.suffix.lower()
    if ending == ".parquet":
        columns = _columns(parquet_columns(path), given, where=path)
        rows = read_parquet(path, list(columns.values()))
    elif ending in (".csv", ".tsv"):
        rows = read_rows(path, (), delimiter="," if ending == ".csv" else "\t")
    elif ending in (".jsonl", ".json"):
        rows = read_json_lines(path) if ending == ".jsonl" else read_json(path, list)
    else:
        raise InputError(f"{path}: its ending says no table; allowed are {', '.join(ENDINGS)}")
    rows = [_with_where(row, f"{path}: row {number}") for number, row in enumerate(rows, start=1)]
    if not rows:
        raise InputError(f"{path}: there are no rows")
    return rows, _columns(rows[0], given, where=path)


def _with_where(row: Any, where: str) -> Row:
    if isinstance(row, Row):
        return row
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected an object, found {str(row)[:60]!r}")
    row = Row(row)
    row.where = where
    return row


def _columns(names: Iterable[str], given: dict[str, str], *, where: Path) -> dict[str, str]:
    """Column by what it is. Raises InputError that lists the columns there are, and the known names."""
    names = list(names)
    if unknown := set(given) - set(COLUMNS):
        raise InputError(
            f"columns: {min(unknown)} is not a part of a table; allowed are {', '.join(COLUMNS)}"
        )
    by_lower = {name.lower(): name for name in reversed(names)}
    found = {}
    for kind, known in COLUMNS.items():
        if kind in given:
            if given[kind] not in names:
                raise InputError(f"{where}: lacks the column {given[kind]!r}; it has {', '.join(names)}")
            found[kind] = given[kind]
        elif column := next((by_lower[name] for name in known if name in by_lower), None):
            found[kind] = column
    if "path" not in found:
        raise InputError(f"{where}: no column is called {_any_of('path')}; it has {', '.join(names)}")
    if not {"text", "label"} & set(found):
        wanted = f"{_any_of('text')}, or {_any_of('label')}"
        raise InputError(f"{where}: no column is called {wanted}; it has {', '.join(names)}")
    return found


def _any_of(kind: str) -> str:
    return ", ".join(COLUMNS[kind])


def _record(row: Row, columns: dict[str, str], *, where: str) -> ClipRecord:
    """Its path as the table gives it."""
    value = {kind: row.get(column) for kind, column in columns.items()}
    path = need_text(value["path"], where=f"{where}: {columns['path']}")
    id = need_id(value["id"], where=f"{where}: {columns['id']}") if "id" in columns else path
    labels = {}
    if value.get("label") not in (None, ""):
        labels["class"] = need_id(value["label"], where=f"{where}: {columns['label']}")
    if "text" not in columns and not labels:
        raise InputError(f"{where}: {columns['label']} is empty")
    texts = value["text"] if "text" in columns else labels["class"]
    if "text" in columns and isinstance(texts, list):
        texts = some_texts(texts, where=f"{where}: {columns['text']}")
    else:
        texts = [need_text(texts, where=f"{where}: {columns.get('text', columns.get('label'))}")]
    return ClipRecord(Path(path), texts[0], labels, id, texts[1:])


def _joined(records: Sequence[ClipRecord], *, where: Path) -> list[ClipRecord]:
    """One record a file, with the texts of all its rows."""
    first: dict[str, ClipRecord] = {}
    for record in records:
        kept = first.setdefault(record.id, record)
        if record.labels != kept.labels:
            found = f"{kept.labels.get('class')!r} and {record.labels.get('class')!r}"
            raise InputError(f"{where}: {record.id} has two classes, {found}")
        kept.more_texts += [text for text in record.texts if text not in kept.texts]
    return list(first.values())


def _find(path: Path, media: dict[str, Path], without_ending: dict[str, Path]) -> Path | None:
    """Where the table says, and nowhere else: other folders may hold other files of the same name."""
    if path.is_absolute():
        return path if path.is_file() else None
    name = path.as_posix()
    return media.get(name) or without_ending.get(name)


def _without_ending(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return stem if dot and f".{ending.lower()}" in (*VIDEO_SUFFIXES, *PICTURE_SUFFIXES) else name


SETS = (
    PublicSet(
        name="folder",
        title="a folder of one's own",
        layout="videos or pictures in folders of classes, or each with a .txt beside it",
        splits={WHOLE: None},
        read=read_folder,
    ),
    PublicSet(
        name="table",
        title="a table of one's own",
        layout="a .csv, .tsv, .jsonl, .json or .parquet file with columns for files and texts or labels",
        splits={},
        read=read_table,
    ),
)
