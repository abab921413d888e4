"""What the sets of videos with texts share: their values checked, and from records to a listing.

A record's `path` is the publisher's name of the video until `video_listing` has found the file.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from coca_video.data.benchmarks.listing import (
    VIDEO_SUFFIXES,
    Files,
    Listing,
    MediaIndex,
    MissingAnnotation,
    need_found,
    split_found,
    without_ending,
    without_repeats,
)
from coca_video.data.manifest import ClipRecord
from coca_video.data.tables import read_rows, read_text
from coca_video.errors import InputError


def annotation(files: Files, *names: str) -> Path:
    """The first of these files, in the root or anywhere below; names may be patterns.

    Raises InputError that lists what was looked for.
    """
    return files.annotation(*[pattern for name in names for pattern in (name, f"**/{name}")])


def optional_annotation(files: Files, *names: str) -> Path | None:
    """As `annotation`; None where none of the files is there."""
    try:
        return annotation(files, *names)
    except MissingAnnotation:
        return None


def read_names(path: Path) -> list[str]:
    """Names of videos, without endings: a CSV's column `video_id`, or the lines of another file."""
    if path.suffix == ".csv":
        names = [row["video_id"] for row in read_rows(path, ["video_id"])]
    else:
        names = [line.strip() for line in read_text(path).split("\n")]
    return [without_ending(name) for name in names if name]


def need_text(value: Any, *, where: str) -> str:
    """`value` if it is a string, stripped; it may be empty."""
    if not isinstance(value, str):
        raise InputError(f"{where}: expected a text, found {str(value)[:60]!r}")
    return value.strip()


def need_texts(value: Any, *, where: str) -> list[str]:
    """`value` if it is a list of strings, each stripped."""
    if not isinstance(value, list):
        raise InputError(f"{where}: expected a list of texts, found {str(value)[:60]!r}")
    return [need_text(text, where=where) for text in value]


def need_id(value: Any, *, where: str) -> str:
    """`value` as a string if it is a whole number or a string that is not blank."""
    if isinstance(value, bool) or not isinstance(value, (int, str)) or not str(value).strip():
        raise InputError(f"{where}: expected an id, found {value!r}")
    return str(value).strip()


def need_span(value: Any, *, where: str) -> list[float]:
    """`value` if it is a pair of numbers, seconds; publishers list some that are empty or turned round."""
    if not (isinstance(value, list) and len(value) == 2 and all(type(end) in (int, float) for end in value)):
        raise InputError(f"{where}: expected [start, end] in seconds, found {value!r}")
    return value


def without_blanks(records: Iterable[ClipRecord], *, where: Path) -> tuple[list[ClipRecord], list[str]]:
    """Records with their texts that are not blank, those without any left out; and a note on both."""
    kept, ids = [], []
    for record in records:
        texts = [text for text in record.texts if text]
        if len(texts) < len(record.texts):
            ids.append(record.id)
        if texts:
            record.text, *record.more_texts = texts
            kept.append(record)
    return kept, _note(ids, where=where, what="with a blank text, which is left out")


def without_empty_spans(records: Iterable[ClipRecord], *, where: Path) -> tuple[list[ClipRecord], list[str]]:
    """Records whose span has a length, and a note on the others: no frame belongs to them."""
    kept, ids = [], []
    for record in records:
        if 0 <= record.span[0] < record.span[1]:
            kept.append(record)
        else:
            ids.append(record.id)
    return kept, _note(ids, where=where, what="whose span has no length, left out")


def video_listing(
    records: Iterable[ClipRecord],
    files: Files,
    *,
    annotations: Sequence[Path],
    notes: Sequence[str] = (),
    hint: str = "",
    spellings: Callable[[str], Sequence[str]] = lambda name: (name,),
) -> Listing:
    """A listing of records whose `path` is the publisher's name of a video, without repeats and blank texts.

    spellings: the names that the video's file may have, the preferred first. annotations: the first of them
    lists the records. Raises MissingAnnotation where they list nothing, InputError where no video is there
    (which `hint` ends).
    """
    where = annotations[0]
    records, repeats = without_repeats(records, where=where)
    records, blanks = without_blanks(records, where=where)
    if not records:
        raise MissingAnnotation(f"{where}: lists nothing of this split")
    index = MediaIndex(files.media, suffixes=VIDEO_SUFFIXES)
    names = {str(record.path): spellings(str(record.path)) for record in records}
    paths = {name: next(filter(None, map(index.find, each)), None) for name, each in names.items()}
    found, missing = split_found(records, [paths[str(record.path)] for record in records])
    example = f"{without_ending(next(iter(names)))}.mp4, in any format of video{hint}"
    need_found(found, missing, folder=files.media, where=where, example=example)
    return Listing(found, missing, list(annotations), notes=[*notes, *repeats, *blanks])


def _note(ids: list[str], *, where: Path, what: str) -> list[str]:
    more = ", ..." if len(ids) > 5 else ""
    return [f"{where}: {len(ids)} {what}: {', '.join(ids[:5])}{more}"] if ids else []
