"""Results as evaluations leave them: finding, reading and checking result.json."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coca_video.errors import InputError
from coca_video.evaluation.benchmark import FORMAT, WRITTEN

FILE = WRITTEN[0]  # result.json

NoneType = type(None)
NEEDED: dict[str, Any] = {
    "dataset": str,
    "title": str,
    "split": str,
    "num_expected": (int, NoneType),
    "num_missing": int,
    "num_failed": int,
    "missing": list,
    "failed": list,
    "notes": list,
    "manifest_sha256": str,
    "annotations": dict,
    "official": bool,
    "not_official_because": list,
    "model.checkpoint": str,
    "model.sha256": str,
    "protocol.reading": str,
    "protocol.num_frames": int,
    "protocol.sampling": str,
    "protocol.num_clips": int,
    "protocol.num_crops": int,
    "tasks": dict,
}
OF_TASKS: dict[str, Any] = {"num_evaluated": int, "num_expected": (int, NoneType), "figures": dict}
OF_TASK: dict[str, dict[str, Any]] = {
    "classification": {"num_classes": int, "templates.sets": list, "templates.prompts": list, "views": str},
    "retrieval": {"num_texts": int, "texts": str},
    "captioning": {"decoding": str},
    "head": {"task": str, "settings": dict},
}
OPTIONAL = ("by_group", "dual_softmax")  # objects of figures
TASKS = tuple(OF_TASK)


@dataclass
class Result:
    """A result.json that has all that the tables need."""

    path: Path
    content: dict

    def __getitem__(self, key: str) -> Any:
        return look_up(self.content, key)

    @property
    def name(self) -> str:
        return self.path.parent.as_posix()

    @property
    def tasks(self) -> list[str]:
        return [task for task in TASKS if task in self.content["tasks"]]


def look_up(content: Any, key: str) -> Any:
    """A value in dictionaries in one another: "model.sha256"."""
    for part in key.split("."):
        content = content[part]
    return content


def each_figure(figures: dict, *within: str) -> Iterator[tuple[tuple[str, ...], float]]:
    """Those of a task, however deep, each with the names that lead to it."""
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from each_figure(value, *within, name)
        else:
            yield (*within, name), value


def find_results(paths: Iterable[Path]) -> tuple[list[Result], list[str]]:
    """The results that are named or lie below folders, each once, and which files were passed over and why.

    Raises InputError, naming the file and key, for what cannot be read, and if there is no result at all.
    """
    found: dict[Path, Result] = {}
    passed_over, paths = [], list(paths)
    for path in paths:
        for file in _files(path):
            content = _read(file)
            if other := _other_format(content):
                if not path.is_dir():
                    raise InputError(f"{file}: {other}; format {FORMAT} is needed")
                passed_over.append(f"{file}: {other}")
            elif file.resolve() not in found:
                found[file.resolve()] = _checked(file, content)
    if not found:
        where = ", ".join(map(str, paths))
        raise InputError(f"{where}: no {FILE} of format {FORMAT} here; passed over: {len(passed_over)}")
    return list(found.values()), list(dict.fromkeys(passed_over))


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    return sorted(path.rglob(FILE)) if path.is_dir() else [path]


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot read this result: {error}") from error


def _other_format(content: Any) -> str | None:
    """What another result than ours is."""
    if not isinstance(content, dict):
        return "is not a result"
    if "format" not in content:
        return "has no format, as results of earlier versions"
    return None if content["format"] == FORMAT else f"has format {content['format']!r}"


def _checked(file: Path, content: dict) -> Result:
    result = Result(file, content)
    for key, kinds in NEEDED.items():
        _check(result, key, kinds)
    if not result.tasks or len(result.tasks) < len(content["tasks"]):
        found = ", ".join(content["tasks"]) or "none"
        raise InputError(f"{file}: tasks must be of {', '.join(TASKS)}, got {found}")
    for task in result.tasks:
        _check_task(result, task)
    for each in content["failed"]:
        if not isinstance(each, dict) or not {"id", "reason"} <= set(each):
            raise InputError(f"{file}: failed must hold objects with id and reason, got {each!r:.60}")
    return result


def _check_task(result: Result, task: str) -> None:
    for key, kinds in (OF_TASKS | OF_TASK[task]).items():
        _check(result, f"tasks.{task}.{key}", kinds)
    for key in OPTIONAL:
        if key in result[f"tasks.{task}"]:
            _check(result, f"tasks.{task}.{key}", dict)


def _check(result: Result, key: str, kinds: Any) -> None:
    try:
        value = result[key]
    except (KeyError, TypeError) as error:
        raise InputError(f"{result.path}: has no {key!r}") from error
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join({NoneType: "null"}.get(kind, kind.__name__) for kind in kinds)
        raise InputError(f"{result.path}: {key!r} must be {wanted}, got {value!r:.60}")
