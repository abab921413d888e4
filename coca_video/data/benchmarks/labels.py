"""The classes of a published set, by whatever spelling a copy of it uses."""

import re
from collections.abc import Set
from pathlib import Path

from coca_video.data.benchmarks.listing import MediaIndex
from coca_video.data.benchmarks.vocabulary import class_list
from coca_video.data.manifest import ClipRecord
from coca_video.errors import InputError

NOWHERE = Path()  # until the file is found


class Labels:
    """Class names of a set of `vocabulary`, found by its ids and names.

    Case, spaces, underscores and punctuation do not count: "massaging_persons_head" and "massaging person's
    head" are the same.
    """

    def __init__(self, name: str):
        classes = class_list(name)
        self.set_name = name
        self.names = classes.names  # in index order
        self._by_spelling = {
            _spelling(known): known_name
            for known_name, id in zip(classes.names, classes.ids, strict=True)
            for known in (known_name, id)
        }

    def name_of(self, label: str, *, where: str) -> str:
        """The class name that `label` means. Raises InputError, beginning with `where`, if there is none."""
        if not label:
            raise InputError(f"{where}: the label is empty")
        if (name := self._by_spelling.get(_spelling(label))) is None:
            raise InputError(
                f"{where}: {label!r} is none of the {len(self.names)} classes of {self.set_name}"
            )
        return name

    def find(self, media: MediaIndex, name: str, label: str) -> Path | None:
        """The file `name`, unless it lies in the folder of another class: names may repeat across classes."""
        path = media.find(name)
        folder_of = path and self._by_spelling.get(_spelling(path.parent.name))
        return path if folder_of in (None, label) else None

    def notes_on(self, seen: Set[str], *, where: Path) -> list[str]:
        """A note if not every class has been `seen`; fewer classes would be an easier task."""
        absent = [name for name in self.names if name not in seen]
        if not absent:
            return []
        known = f"{len(self.names) - len(absent)} of the {len(self.names)} classes"
        return [f"{where}: holds {known}; all are kept as classes; absent: {', '.join(absent[:5])}"]


def class_record(id: str, name: str) -> ClipRecord:
    """An example of a class, its path to be found; the class name is its text."""
    return ClipRecord(NOWHERE, name, {"class": name}, id=id)


def _spelling(label: str) -> str:
    return re.sub(r"[\W_]", "", label.lower())
