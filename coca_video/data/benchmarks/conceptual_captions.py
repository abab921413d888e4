"""Conceptual Captions, 3M (Sharma et al. 2018) and 12M (Changpinyo et al. 2021).

    Train_GCC-training.tsv, Validation_GCC-1.1.0-Validation.tsv    caption<TAB>address
    cc12m.tsv                                                      address<TAB>caption

There is no header and there are no quotes. The publisher gives no pictures, and an address does not say what
its file is called: to read a copy from its files the table needs a column of paths below the pictures'
folder (`path<TAB>caption`), or of img2dataset's keys (file 00012/000123456.jpg has the key 000123456). The
columns may stand in any order: what they hold tells which is which, or a header (key, path, url, caption).
What img2dataset downloaded needs no table: with a .txt beside each picture it is the set `folder`; its tar
shards are trained on as they are.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from coca_video.data.benchmarks.listing import Files, Listing, MediaIndex, PublicSet, need_split
from coca_video.data.benchmarks.picture_sets import listing_of
from coca_video.data.manifest import ClipRecord
from coca_video.data.pictures import PICTURE_SUFFIXES
from coca_video.data.tables import Fields, read_fields
from coca_video.errors import InputError

HEADER = {
    "caption": ("caption", "text", "title"),
    "url": ("url", "image_url"),
    "path": ("path", "file", "filepath", "filename", "image"),
    "key": ("key",),
}
NUM_JUDGED = 100  # rows whose content tells what a column is
PATTERNS = {
    "cc3m": {
        "train": ("Train*.tsv", "train*.tsv", "*train*.tsv"),
        "val": ("Validation*.tsv", "val*.tsv", "*val*.tsv"),
    },
    "cc12m": {"train": ("cc12m*.tsv", "*.tsv")},
}


def read(files: Files, split: str, *, name: str) -> Listing:
    need_split(split, PATTERNS[name])
    patterns = PATTERNS[name][split]
    path = files.annotation(*patterns, *(f"*/{pattern}" for pattern in patterns))
    rows = read_fields(path, 2, delimiter="\t", at_least=True)
    columns = _columns(rows, path)
    records = [_record(row, columns) for row in rows]
    media = MediaIndex(files.media, suffixes=PICTURE_SUFFIXES)
    return listing_of(
        records,
        lambda record: _find(media, record.path.as_posix()),
        files=files,
        annotations=[path],
        example=lambda record: record.path.as_posix(),
    )


def _columns(rows: list[Fields], path: Path) -> dict[str, int]:
    """Which column is the caption, and the path or the key; takes a header off `rows`."""
    if not rows:
        raise InputError(f"{path}: is empty")
    if wrong := [row for row in rows if len(row) != len(rows[0])]:
        raise InputError(f"{wrong[0].where}: expected {len(rows[0])} fields, found {len(wrong[0])}")
    kinds = _kinds_by_header(rows[0])
    if None not in kinds:
        del rows[0]
    else:
        kinds = [_kind(values) for values in zip(*rows[:NUM_JUDGED])]
    if kinds.count("caption") != 1:
        raise InputError(f"{path}: expected one column of captions, found columns of {', '.join(kinds)}")
    if not {"path", "key"} & set(kinds):
        raise InputError(
            f"{path}: says of which address a picture is, not which file; it needs a column of paths or of "
            "img2dataset's keys, or read the pictures with a .txt beside each as the set 'folder'"
        )
    return {kind: kinds.index(kind) for kind in kinds}


def _kinds_by_header(names: Sequence[str]) -> list[str | None]:
    return [next((kind for kind, known in HEADER.items() if name.lower() in known), None) for name in names]


def _kind(values: Sequence[str]) -> str:
    if all(value.startswith(("http://", "https://")) for value in values):
        return "url"
    if all(value.isascii() and value.isdigit() for value in values):
        return "key"
    if all(PurePosixPath(value).suffix.lower() in PICTURE_SUFFIXES for value in values):
        return "path"
    return "caption"


def _record(row: Fields, columns: dict[str, int]) -> ClipRecord:
    """Its path below the pictures' folder; of a key, as img2dataset calls it."""
    kind = "path" if "path" in columns else "key"
    id, caption = row[columns[kind]], row[columns["caption"]]
    if not id or not caption:
        raise InputError(f"{row.where}: the {'caption' if id else kind} is empty")
    return ClipRecord(Path(id if kind == "path" else f"{id[:5]}/{id}.jpg"), caption, id=id)


def _find(media: MediaIndex, path: str) -> Path | None:
    """Where it is said to be, whatever its ending: other folders hold other pictures of the same name."""
    stem = path.removesuffix(PurePosixPath(path).suffix)
    endings = (PurePosixPath(path).suffix, *PICTURE_SUFFIXES)
    return next((media.by_path[stem + ending] for ending in endings if stem + ending in media.by_path), None)


SETS = (
    PublicSet(
        name="cc3m",
        title="Conceptual Captions 3M",
        layout="Train*.tsv or Validation*.tsv of captions and paths (or img2dataset's keys); the pictures",
        splits={"train": 3_318_333, "val": 15_840},
        read=partial(read, name="cc3m"),
    ),
    PublicSet(
        name="cc12m",
        title="Conceptual Captions 12M",
        layout="cc12m*.tsv of captions and paths (or img2dataset's keys); the pictures",
        splits={"train": 12_423_374},
        read=partial(read, name="cc12m"),
    ),
)
