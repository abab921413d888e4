"""Pictures with texts in WebDataset tar shards; the only module that imports webdataset.

A sample is three members of one tar file: `key.png`, `key.txt` (the text) and `key.json` (the labels). What
others wrote is read too, such as img2dataset's shards of CC3M and CC12M: the picture may be jpg, jpeg or
webp, there may be no labels, and the text may be "caption" or "text" in `key.json`.
"""

import glob
import json
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import webdataset

from coca_video.data.manifest import check_labels
from coca_video.errors import InputError

PICTURES = ("png", "jpg", "jpeg", "webp")
TEXTS = ("caption", "text")  # in key.json


@dataclass
class PictureRecord:
    """One encoded picture, the text that describes it, and what else is known of it."""

    key: str
    encoded: bytes  # a whole file of its format; png, where this package wrote it
    text: str
    labels: dict[str, str]

    @property
    def texts(self) -> list[str]:
        return [self.text]


def write_shards(
    folder: Path, samples: Iterable[PictureRecord], *, max_per_shard: int, prefix: str
) -> list[Path]:
    """Write `folder/{prefix}-000000.tar` and on, replacing an older set of that prefix.

    The first shard is put in place last: where it is present, the set is whole.
    Raises InputError for a key with "." or "/", which webdataset would split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.absolute(), prefix=f".{prefix}-") as partial:
        pattern = os.path.join(partial.replace("%", "%%"), f"{prefix}-%06d.tar")
        # Without encoder and clock, the same samples make the same bytes.
        with webdataset.ShardWriter(
            pattern, maxcount=max_per_shard, encoder=False, mtime=0, verbose=0
        ) as writer:
            for sample in samples:
                writer.write(_members(sample))
        for old in sorted(folder.glob(f"{prefix}-{'[0-9]' * 6}.tar")):
            old.unlink()
        names = sorted(os.listdir(partial))
        for name in reversed(names):
            os.replace(os.path.join(partial, name), folder / name)
    return [folder / name for name in names]


def read_pictures(folder_or_glob: Path | str) -> list[PictureRecord]:
    """Every sample of a folder of shards, or of a glob pattern's shards, in shard order."""
    return list(iterate_pictures(folder_or_glob))


def iterate_pictures(folder_or_glob: Path | str) -> Iterator[PictureRecord]:
    """Like `read_pictures`, one sample at a time; every process that calls it reads all shards.

    Raises InputError where there is no shard, and for an unreadable shard or an incomplete sample.
    """
    for shard in _list_shards(folder_or_glob):
        dataset = webdataset.WebDataset(
            [shard], shardshuffle=False, nodesplitter=None, workersplitter=None, empty_check=False
        )
        try:
            for sample in dataset:
                yield _parse_sample(sample, where=f"{shard}: sample {sample['__key__']}")
        except tarfile.TarError as error:
            raise InputError(f"{shard}: not a readable tar file: {error.args[0]}") from error


def _list_shards(folder_or_glob: Path | str) -> list[str]:
    pattern = os.path.abspath(folder_or_glob)  # webdataset takes "a:b/c" for an address, "/a:b/c" for a file
    if os.path.isdir(pattern):
        pattern = os.path.join(glob.escape(pattern), "*.tar")
    shards = sorted(glob.glob(pattern))
    if not shards:
        raise InputError(f"{folder_or_glob}: no shards found; looked for {pattern}")
    return shards


def _members(sample: PictureRecord) -> dict[str, str | bytes]:
    if "." in sample.key or "/" in sample.key:
        raise InputError(f"sample key {sample.key!r}: '.' and '/' are not allowed in a key")
    labels = json.dumps(sample.labels, ensure_ascii=False)
    return {
        "__key__": sample.key,
        "png": sample.encoded,
        "txt": sample.text.encode(),
        "json": labels.encode(),
    }


def _parse_sample(sample: dict, *, where: str) -> PictureRecord:
    picture = next((sample[suffix] for suffix in PICTURES if suffix in sample), None)
    if picture is None:
        raise InputError(f"{where} lacks a picture; it needs one of {', '.join(PICTURES)}")
    try:
        text = sample["txt"].decode().strip() if "txt" in sample else None
        labels = json.loads(sample.get("json", b"{}"))
    except ValueError as error:
        raise InputError(f"{where}: txt must be UTF-8 and json valid: {error}") from error
    if isinstance(labels, dict) and any(name in labels for name in TEXTS):
        inside, labels = _text_and_labels(labels)
        text = inside if text is None else text
    if text is None:
        raise InputError(f"{where} lacks a text; it needs txt, or json with {' or '.join(TEXTS)}")
    return PictureRecord(sample["__key__"], picture, text, check_labels(labels, where=where))


def _text_and_labels(entry: dict) -> tuple[str | None, dict[str, str]]:
    """Of a json that is not only labels: it has numbers and nulls of the download, which are none."""
    text = next((entry[name].strip() for name in TEXTS if isinstance(entry.get(name), str)), None)
    return text, {
        name: value for name, value in entry.items() if isinstance(value, str) and name not in TEXTS
    }
