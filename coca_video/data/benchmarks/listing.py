"""What a public data set is to this package: its publisher's files in, a manifest and a card out."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coca_video.data.manifest import ClipRecord
from coca_video.data.pictures import PICTURE_SUFFIXES
from coca_video.errors import InputError

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp")


class MissingAnnotation(InputError):
    """The publisher's files of a split are not there at all."""


class MissingMedia(InputError):
    """Not one of the videos or pictures of a split is there."""


class MissingLabels(InputError):
    """Nothing says what the examples of a split show: publishers keep the labels of some test splits."""


@dataclass
class Listing:
    """One split as its publisher lists it: `records` are on this disk, `missing` are not."""

    records: list[ClipRecord]
    missing: list[str]  # ids of examples whose file is not there
    annotations: list[Path]  # the publisher's files that say so
    classes: list[str] = field(default_factory=list)  # names, in index order; of classification sets
    class_ids: list[str] = field(default_factory=list)  # what label "class" holds, if names are not distinct
    notes: list[str] = field(default_factory=list)  # what a user should know: repeated lines, overlaps
    subsets: dict[str, int] = field(default_factory=dict)  # official sizes of parts: "label" or "label=value"

    @property
    def num_listed(self) -> int:
        return len(self.records) + len(self.missing)


@dataclass(frozen=True)
class PublicSet:
    """A data set that anyone can get from its publisher."""

    name: str  # as commands and results spell it
    title: str
    layout: str  # the files needed, for people: one line
    splits: dict[str, int | None]  # by name, how many examples the publisher's files list; None: not known
    read: Callable[["Files", str], Listing]  # files, split -> listing


@dataclass(frozen=True)
class Files:
    """Where a user keeps a data set: `root` holds the annotations, `media` the videos or pictures."""

    root: Path
    media: Path
    columns: dict[str, str] = field(default_factory=dict)  # of one's own tables: role -> the column's name

    def annotation(self, *patterns: str) -> Path:
        """The first file below `root` that matches; patterns as of Path.glob, the preferred first.

        Raises InputError that lists what was looked for.
        """
        return self.annotations(*patterns)[0]

    def annotations(self, *patterns: str) -> list[Path]:
        """All files of the first pattern that matches any. Raises InputError as `annotation` does."""
        for pattern in patterns:
            if found := sorted(path for path in self.root.glob(pattern) if path.is_file()):
                return found
        raise MissingAnnotation(f"{self.root}: no annotation file; looked for {', '.join(patterns)}")


class MediaIndex:
    """The videos and pictures below some folders, found by their names without ending, or by relative path.

    Files of earlier folders win. A name may hold dots and begin with "-". Links are followed, hidden files
    are not seen. `by_path` holds them all in order, by path relative to their folder.
    """

    def __init__(self, *folders: Path, suffixes: Iterable[str] = (*VIDEO_SUFFIXES, *PICTURE_SUFFIXES)):
        self._suffixes = tuple(suffixes)
        self.by_path: dict[str, Path] = {}
        self._by_stem: dict[str, Path] = {}
        self._by_parent: dict[tuple[str, str], Path] = {}  # name of the folder, name without ending
        for folder in folders:
            for path in self._walk(folder, set()):
                self.by_path.setdefault(path.relative_to(folder).as_posix(), path)
                self._by_stem.setdefault(path.stem, path)
                self._by_parent.setdefault((path.parent.name, path.stem), path)

    def find(self, name: str) -> Path | None:
        """By relative path if there is one, else by folder and name, else by name in whatever folder."""
        if name in self.by_path:
            return self.by_path[name]
        folders, _, last = name.rpartition("/")
        stem = without_ending(last, self._suffixes)
        beside = self._by_parent.get((folders.rpartition("/")[2], stem))
        return beside or self._by_stem.get(stem)

    def _walk(self, folder: Path, seen: set[str]) -> Iterator[Path]:
        """The files in order of their paths; `seen`: folders that it has been in, as links may go round."""
        here = os.path.realpath(folder)
        if here in seen or not os.path.isdir(here):
            return
        seen.add(here)
        try:
            with os.scandir(folder) as entries:
                entries = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise InputError(f"{folder}: cannot list this folder: {error}") from error
        for entry in entries:
            if entry.is_dir():
                yield from self._walk(Path(entry.path), seen)
            elif self._is_seen(entry.name) and entry.is_file():
                yield Path(entry.path)

    def _is_seen(self, name: str) -> bool:
        return os.path.splitext(name)[1].lower() in self._suffixes and not name.startswith(".")


def without_ending(name: str, suffixes: Collection[str] = (*VIDEO_SUFFIXES, *PICTURE_SUFFIXES)) -> str:
    """A file's name or path without its ending, if that is one of videos or pictures: ids may hold dots."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in suffixes else name


def split_found(
    records: Iterable[ClipRecord], paths: Iterable[Path | None]
) -> tuple[list[ClipRecord], list[str]]:
    """Records whose file was found, with its path; the ids of the others."""
    found, missing = [], []
    for record, path in zip(records, paths, strict=True):
        if path is None:
            missing.append(record.id)
        else:
            record.path = path
            found.append(record)
    return found, missing


def need_split(split: str, allowed: Iterable[str]) -> None:
    """Raise InputError unless the set has this split."""
    if split not in (allowed := list(allowed)):
        raise InputError(f"split: there is no split {split!r}; this set has {', '.join(allowed)}")


def need_found(
    records: Sequence[ClipRecord], missing: Sequence[str], *, folder: Path, where: Path, example: str = "{}"
) -> None:
    """Raise MissingMedia if no file at all was found below `folder`.

    where: what lists them; example: of a file's name, {} is its id.
    """
    if missing and not records:
        name = example.replace("{}", missing[0])
        raise MissingMedia(f"{folder}: none of the {len(missing)} files listed is here, such as {name}")
    if not records:
        raise MissingMedia(f"{where}: lists nothing of this split")


def without_repeats(records: Iterable[ClipRecord], *, where: Path) -> tuple[list[ClipRecord], list[str]]:
    """The first record of every id, and a note on the others: lines of publishers do repeat."""
    first: dict[str, ClipRecord] = {}
    same, other = [], []
    for record in records:
        kept = first.setdefault(record.id, record)
        if kept is not record:
            (same if kept == record else other).append(record.id)
    notes = []
    for ids, how in ((same, "listed twice"), (other, "listed again with other contents; the first counts")):
        if ids:
            notes.append(f"{where}: {len(ids)} {how}: {', '.join(ids[:5])}{', ...' if len(ids) > 5 else ''}")
    return list(first.values()), notes
