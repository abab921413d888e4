"""Class names and prompt templates of public data sets, each from a file that names its source.

    names/kinetics400.json       {"source", "order", "classes": [label or {"id", "name"}, ...]}
    templates/clip_kinetics.json {"source", "templates": ["a photo of {}.", ...]}

Classes stand in the publisher's index order where there is one; `order` says which. Labels of ObjectNet come
with its pictures (mappings/folder_to_objectnet_label.json) and are not kept here.
"""

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from coca_video.errors import InputError

NAMES = Path(__file__).parent / "names"
TEMPLATES = Path(__file__).parent / "templates"

# The templates that published zero-shot figures of a data set use, as far as CLIP named any.
USUAL_TEMPLATES = {
    "imagenet": "clip_imagenet",
    "imagenet_v2": "clip_imagenet",
    "imagenet_a": "clip_imagenet",
    "imagenet_r": "clip_imagenet",
    "imagenet_sketch": "clip_imagenet",
    "objectnet": "clip_imagenet",
    "kinetics400": "clip_kinetics",
    "kinetics600": "clip_kinetics",
    "kinetics700": "clip_kinetics",
    "moments": "clip_kinetics",
    "ucf101": "clip_ucf101",
    "hmdb51": "clip_ucf101",
    "ssv2": "plain",  # its classes are sentences
}


@dataclass(frozen=True)
class ClassList:
    """The classes of a data set in index order.

    An id is what the data set's files call a class (a WordNet id, a folder, a label): ids are distinct. Names
    are what a prompt says, and may repeat: CLIP has two classes "missile" on ImageNet.
    """

    ids: list[str]
    names: list[str]
    order: str  # what the index order is
    source: str

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def index_of(self) -> dict[str, int]:
        """Id to index."""
        return {id: index for index, id in enumerate(self.ids)}

    @cached_property
    def name_of(self) -> dict[str, str]:
        """Id to name."""
        return dict(zip(self.ids, self.names, strict=True))


def class_list(name: str) -> ClassList:
    """The classes of the data set `name`. Raises InputError for a name that is not in names/."""
    content = _read(NAMES, name, what="list of classes")
    pairs = [
        (entry, entry) if isinstance(entry, str) else (entry["id"], entry["name"])
        for entry in content["classes"]
    ]
    ids, names = (list(column) for column in zip(*pairs, strict=True))
    return ClassList(ids, names, content["order"], content["source"])


def class_names(name: str) -> list[str]:
    """The names alone, in index order. Raises InputError as `class_list` does."""
    return class_list(name).names


def templates(name: str) -> list[str]:
    """Prompts with one {} each, for a class name: a published set by its name, or a text file's, one a line.

    Raises InputError for a name that is neither, and, with file and line, for a line that is no template.
    """
    if name not in known_in(TEMPLATES) and (name.endswith(".txt") or Path(name).is_file()):
        return _templates_of_file(Path(name))
    return _read(TEMPLATES, name, what="set of templates")["templates"]


def known_in(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.json"))


def no_such(what: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not among the known ones."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return InputError(f"{name}: there is no such {what}; {hint}allowed are {', '.join(known)}")


def _read(folder: Path, name: str, *, what: str) -> dict:
    known = known_in(folder)
    if name not in known:
        raise no_such(what, name, known)
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def _templates_of_file(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read these templates: {error}") from error
    found = [
        _checked_template(line.strip(), where=f"{path}:{number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not found:
        raise InputError(f"{path}: there are no templates; each line needs one, such as 'a photo of a {{}}.'")
    return found


def _checked_template(line: str, *, where: str) -> str:
    """A line with {} once; further braces would be read as fields when the prompt is made."""
    rest = line.replace("{}", "")
    if line.count("{}") != 1 or "{" in rest or "}" in rest:
        raise InputError(
            f"{where}: a template needs {{}} once, for the class name, and no other braces; found {line!r}"
        )
    return line
