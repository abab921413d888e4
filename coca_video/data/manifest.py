"""Manifests: JSON lines, one example each, beside the videos or pictures that they name.

    {"path": "clips/0001.mp4", "text": "a person juggling", "labels": {"action": "juggling"}}

`path` is relative to the manifest's folder, so that a data set can be moved as a whole. Further fields are
those of `ClipRecord`; all but `path` and `text` may be left out.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from coca_video.errors import InputError
from coca_video.files import write_whole

PATHS = ("path", "second_path")


@dataclass
class ClipRecord:
    """A video or a picture, the text that goes with it, and what else is known of it."""

    path: Path
    text: str  # describes it; or the question, or the statement, about it
    labels: dict[str, str] = field(default_factory=dict)
    id: str = ""  # the publisher's name of the example
    more_texts: list[str] = field(default_factory=list)  # that describe it too
    answers: list[str] = field(default_factory=list)  # to the question that `text` is, one an annotator
    span: list[float] = field(
        default_factory=list
    )  # [start, end) of the clip within the file, seconds; empty: all
    second_path: Path | None = None  # of a pair of pictures

    @property
    def texts(self) -> list[str]:
        return [self.text, *self.more_texts]

    @property
    def files(self) -> list[Path]:
        return [self.path] if self.second_path is None else [self.path, self.second_path]

    @property
    def singly(self) -> list["ClipRecord"]:
        """The record itself; of a pair, a record of each of the two."""
        if self.second_path is None:
            return [self]
        return [replace(self, path=file, second_path=None) for file in self.files]

    @property
    def name(self) -> str:
        """How results name the example."""
        return self.id or str(self.path)


def read_manifest(path: Path | str) -> list[ClipRecord]:
    """The records of a manifest in file order; their paths are joined to the manifest's folder.

    Raises InputError, naming file and line, for a missing or empty file and for every malformed line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines would also split inside texts
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error  # the file is named already
        raise InputError(f"{path}: cannot read this manifest: {reason}") from error
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


def belongs(labels: dict[str, str], subset: str) -> bool:
    """Whether a record of these labels is in a subset: "" is all, "label" has it, "label=value" has it so."""
    label, equals, value = subset.partition("=")
    if not subset:
        return True
    return labels.get(label) == value if equals else label in labels


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
    known = [each.name for each in fields(ClipRecord)]
    if not isinstance(entry, dict) or not {"path", "text"} <= set(entry) <= set(known):
        found = ", ".join(entry) or "none" if isinstance(entry, dict) else repr(entry)
        allowed = f"path and text, and may have {', '.join(known[2:])}"
        raise InputError(f"{where}: a clip needs the fields {allowed}; found {found}")
    for name in ("path", "text"):
        if not isinstance(entry[name], str) or not entry[name]:
            raise InputError(f"{where}: {name} must be a non-empty string, found {entry[name]!r}")
    check_labels(entry.get("labels", {}), where=where)
    _check_optional(entry, where=where)
    _check_characters(line, entry, where=where)
    return ClipRecord(**entry | {name: folder / entry[name] for name in PATHS if name in entry})


def _check_optional(entry: dict, *, where: str) -> None:
    for name in ("id", "second_path"):
        if not isinstance(entry.get(name, ""), str):
            raise InputError(f"{where}: {name} must be a string, found {entry[name]!r}")
    for name in ("more_texts", "answers"):
        found = entry.get(name, [])
        if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
            raise InputError(f"{where}: {name} must be a list of strings, found {found!r}")
    if "" in entry.get("more_texts", []):
        raise InputError(f"{where}: more_texts must not hold an empty text, found {entry['more_texts']!r}")
    span = entry.get("span", [])
    is_pair = isinstance(span, list) and len(span) == 2 and all(type(end) in (int, float) for end in span)
    if span != [] and not (is_pair and 0 <= span[0] < span[1]):
        raise InputError(f"{where}: span must be [start, end] in seconds, start before end, found {span!r}")


def _check_characters(line: str, entry: dict, *, where: str) -> None:
    """JSON can hold half of a character, by an escape, and a tokenizer cannot. Paths may have any bytes."""
    if "\\ud" not in line.lower():
        return
    said = {name: value for name, value in entry.items() if name not in PATHS}
    try:
        json.dumps(said, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        found = f"found {error.object[error.start]!r} alone"
        raise InputError(f"{where}: must be valid Unicode, {found}") from error


def _format_line(record: ClipRecord, *, folder: Path) -> str:
    """What is empty is left out, but for labels."""
    entry = {name: value for name, value in vars(record).items() if value or name == "labels"}
    for name in PATHS:
        if name in entry:
            entry[name] = Path(os.path.relpath(entry[name], folder)).as_posix()
    return json.dumps(entry, ensure_ascii=False) + "\n"
