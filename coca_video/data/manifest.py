"""Clip manifests: JSON lines, one clip each, beside the video files they name.

    {"path": "clips/0001.mp4", "text": "a person juggling", "labels": {"action": "juggling"}}

`path` is relative to the manifest's folder, so that a data set can be moved as a whole.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from coca_video.errors import InputError
from coca_video.files import write_whole

FIELDS = ("path", "text", "labels")


@dataclass
class ClipRecord:
    """One video file, the text that describes it, and what else is known of it."""

    path: Path
    text: str
    labels: dict[str, str]


def read_manifest(path: Path | str) -> list[ClipRecord]:
    """The clips of a manifest in file order; `ClipRecord.path` is joined to the manifest's folder.

    Raises InputError, naming file and line, for a missing or empty file and for every malformed line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines would also split inside texts
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read this manifest: {error}") from error
    records = [
        _parse_line(line, folder=path.parent, where=f"{path}:{number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not records:
        raise InputError(f"{path}: the manifest is empty; it needs at least one clip")
    return records


def write_manifest(path: Path | str, records: Iterable[ClipRecord]) -> None:
    """Write a manifest under a temporary name and rename it, so that it is whole or absent."""
    path = Path(path)
    write_whole(path, "".join(_format_line(record, folder=path.parent) for record in records))


def check_labels(value: object, *, where: str) -> dict[str, str]:
    """`value` if it maps strings to strings; InputError, beginning with `where`, if not."""
    if not isinstance(value, dict):
        raise InputError(f"{where}: labels must be an object of strings, found {value!r}")
    for name, label in value.items():
        if not isinstance(label, str):
            raise InputError(f"{where}: label {name!r} must be a string, found {label!r}")
    return value


def _parse_line(line: str, *, folder: Path, where: str) -> ClipRecord:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error}): {line[:60]!r}") from error
    if not isinstance(entry, dict) or sorted(entry) != sorted(FIELDS):
        found = ", ".join(entry) or "none" if isinstance(entry, dict) else repr(entry)
        raise InputError(f"{where}: a clip needs exactly the fields {', '.join(FIELDS)}; found {found}")
    for name in ("path", "text"):
        if not isinstance(entry[name], str) or not entry[name]:
            raise InputError(f"{where}: {name} must be a non-empty string, found {entry[name]!r}")
    return ClipRecord(folder / entry["path"], entry["text"], check_labels(entry["labels"], where=where))


def _format_line(record: ClipRecord, *, folder: Path) -> str:
    relative = Path(os.path.relpath(record.path, folder)).as_posix()
    entry = {"path": relative, "text": record.text, "labels": record.labels}
    return json.dumps(entry, ensure_ascii=False) + "\n"
