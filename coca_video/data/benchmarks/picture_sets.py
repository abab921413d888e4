"""What the readers of picture sets share: texts that are there, files that are found, folders of classes."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from coca_video.data.benchmarks.listing import (
    Files,
    Listing,
    MissingAnnotation,
    need_found,
    split_found,
    without_repeats,
)
from coca_video.data.manifest import ClipRecord
from coca_video.data.pictures import PICTURE_SUFFIXES
from coca_video.errors import InputError

NUM_LEVELS = 5  # ImageNet's classes lie in ILSVRC/Data/CLS-LOC/val


def need_text(value: Any, *, where: str) -> str:
    """`value` stripped, if it is a text that says something; InputError, beginning with `where`, if not."""
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: expected a text, found {value!r}")
    return value.strip()


def some_texts(values: Any, *, where: str) -> list[str]:
    """The texts of a list, stripped, without empty ones; InputError with `where` if none is left."""
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InputError(f"{where}: expected a list of texts, found {str(values)[:60]}")
    texts = [value.strip() for value in values if value.strip()]
    if not texts:
        raise InputError(f"{where}: there is no text")
    return texts


def need_list(value: Any, *, where: str) -> list:
    if not isinstance(value, list):
        raise InputError(f"{where}: expected a list, found {str(value)[:60]!r}")
    return value


def need_id(value: Any, *, where: str) -> str:
    """An id as a string, whether the file has it as a number or as one."""
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise InputError(f"{where}: expected an id, a number or a string, found {value!r}")
    return str(value)


def need_number(value: Any, *, where: str) -> int:
    """A whole number, which may be written as a string."""
    text = need_id(value, where=where)
    if not (text.isascii() and text.isdigit()):
        raise InputError(f"{where}: expected a whole number, found {value!r}")
    return int(text)


def listing_of(
    records: Iterable[ClipRecord],
    find: Callable[[ClipRecord], Path | None],
    *,
    files: Files,
    annotations: Sequence[Path],
    example: Callable[[ClipRecord], str],
    notes: Sequence[str] = (),
    subsets: dict[str, int] | None = None,
) -> Listing:
    """The records in the publisher's order, without repeats, sorted by whether `find` finds their file.

    example: the name that a record's file is expected to have. Raises InputError if there is no record, or
    no file.
    """
    records, repeats = without_repeats(records, where=annotations[0])
    if not records:
        raise InputError(f"{annotations[0]}: lists no examples")
    expected = example(records[0])
    found, missing = split_found(records, map(find, records))
    need_found(found, missing, folder=files.media, where=annotations[0], example=expected)
    return Listing(found, missing, list(annotations), notes=[*notes, *repeats], subsets=subsets or {})


def class_folders(
    media: Path, is_class: Callable[[str], bool], *, called: str, example: str, must: bool = False
) -> Path:
    """The one folder at or below `media` whose sub-folders are classes.

    Of several it is the one whose name matches the pattern `called`, as it must in any case with `must`.
    example: the name of a class's folder, for messages. Raises InputError for several, MissingAnnotation for
    none.
    """
    if not media.is_dir():
        raise InputError(f"{media}: no such folder")
    found = _with_classes(media, is_class)
    candidates = [folder for folder in found if re.fullmatch(called, folder.name, re.IGNORECASE)]
    candidates = candidates if candidates or must else found
    if not candidates:
        wanted = f", in one whose name fits {called}" if must else ""
        raise MissingAnnotation(f"{media}: holds no folders of classes, such as {example}{wanted}")
    if len(candidates) > 1:
        names = ", ".join(folder.relative_to(media).as_posix() for folder in candidates[:5])
        raise InputError(f"{media}: several folders hold classes, {names}; give the one that is meant")
    return candidates[0]


def subfolders(folder: Path) -> list[Path]:
    """In order of their names; hidden ones are not seen."""
    with os.scandir(folder) as entries:
        return sorted(
            Path(entry.path) for entry in entries if not entry.name.startswith(".") and entry.is_dir()
        )


def pictures_in(folder: Path) -> list[Path]:
    """In order of their names; hidden ones are not seen."""
    return sorted(
        folder / name
        for name in os.listdir(folder)
        if not name.startswith(".") and name.lower().endswith(PICTURE_SUFFIXES)
    )


def _with_classes(media: Path, is_class: Callable[[str], bool]) -> list[Path]:
    """All folders that hold classes; what lies in classes is not looked at."""
    found, level = [], [media]
    for _ in range(NUM_LEVELS):
        below = []
        for folder in level:
            inside = subfolders(folder)
            if any(is_class(each.name) for each in inside):
                found.append(folder)
            else:
                below += inside
        level = below
    return found
