"""The rows of a comparison's tables: of results, and of published figures."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coca_video.errors import InputError
from coca_video.evaluation.benchmark import is_complete
from coca_video.evaluation.columns import COLUMNS, Column
from coca_video.evaluation.published import BENCHMARKS, SETTINGS, Published, published
from coca_video.evaluation.results import Result, look_up

NOTHING = "–"


@dataclass
class Row:
    name: str  # of the model
    about: str  # more of it
    reading: str  # or the setting of a published figure
    frames: str
    views: str
    protocol: str
    examples: str
    values: list[float | None]  # one a column, in the table's units
    is_ranked: bool = False  # may be the best
    is_first: bool = True  # of its result
    badge: str = ""
    reasons: list[str] = field(default_factory=list)  # of the badge
    source: str = ""
    best: set[int] = field(default_factory=set)  # numbers of columns

    @property
    def shown(self) -> list[str]:
        return [NOTHING if value is None else f"{value:,.1f}" for value in self.values]


# Of results


def result_rows(result: Result, task: str) -> list[Row]:
    """Readings, the leading one first; groups of examples below theirs; dual softmax last.

    Raises InputError, naming file and key, for a figure that is no number.
    """
    found, lead = result[f"tasks.{task}"], result["protocol.reading"]
    rows = []
    for reading in sorted(found["figures"], key=lambda name: name != lead):
        rows.append(_row(result, task, reading, found["figures"][reading]))
        if reading == "video":  # of whose captions groups are made
            groups = found.get("by_group", {})
            rows += [_group_row(result, task, name, figures) for name, figures in groups.items()]
    others = found.get("dual_softmax", {})
    rows += [_dual_softmax_row(result, task, reading, figures) for reading, figures in others.items()]
    for row in rows[1:]:
        row.is_first = False
    return rows


def _row(result: Result, task: str, reading: str, figures: dict) -> Row:
    found, protocol, is_official = result[f"tasks.{task}"], result["protocol"], result["official"]
    return Row(
        name=result["model.checkpoint"],
        about=_about_model(result),
        reading=reading.replace("_", " "),
        frames="1" if reading == "first_frame" else str(protocol["num_frames"]),
        views=f"{protocol['num_clips']} × {protocol['num_crops']}",
        protocol=_protocol(result, task),
        examples=f"{_count(found['num_evaluated'])} of {_count(found['num_expected'])}",
        values=[_number(result.path, f"{task}.{reading}", figures, column) for column in COLUMNS[task]],
        is_ranked=is_official,
        badge="" if is_official else "not official" if is_complete(result.content) else "partial",
        reasons=result["not_official_because"],
    )


def _group_row(result: Result, task: str, name: str, figures: dict) -> Row:
    row = _row(result, task, name, figures)
    row.reading, row.examples = f"– {name}", _count(figures.get("num_evaluated"))
    row.is_ranked = False  # fewer examples are another task
    return row


def _dual_softmax_row(result: Result, task: str, reading: str, figures: dict) -> Row:
    row = _row(result, task, f"{reading}, dual softmax", figures)
    scale = result[f"tasks.{task}"].get("dual_softmax_scale")
    row.protocol += f", dual softmax of scale {scale:.4g}" if scale else ""
    row.is_ranked = False  # it uses the other queries, and is no equal of the plain ones
    return row


def _count(number: int | None) -> str:
    return NOTHING if number is None else f"{number:,}"


def _number(path: Path, place: str, figures: Any, column: Column) -> float | None:
    """In the column's unit; None where it was not computed."""
    try:
        value = look_up(figures, column.key or column.metric)
    except KeyError:
        return None
    except TypeError as error:
        raise InputError(f"{path}: {place} must hold figures by name, got {figures!r:.60}") from error
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{path}: {column.metric} of {place} must be a number, got {value!r:.60}")
    return column.factor * value if math.isfinite(value) else None


def _about_model(result: Result) -> str:
    adaptor = result["model"].get("adaptor")
    return ", ".join([*([adaptor] if adaptor else []), f"sha256 {result['model.sha256'][:12]}"])


# How results came about

APPROXIMATIONS = ("reduced_decoding", "merged_per_block")


def _protocol(result: Result, task: str) -> str:
    """All that frames and views do not say."""
    protocol, found = result["protocol"], result[f"tasks.{task}"]
    parts = [protocol["name"]] if protocol.get("name") else []
    parts += _of_frames(protocol) + OF_TASK[task](found)
    if protocol["num_clips"] * protocol["num_crops"] > 1 and "views" in found:
        parts.append(f"views: {found['views']}")
    parts += [name.replace("_", " ") for name in APPROXIMATIONS if protocol.get(name)]
    return ", ".join(parts)


def _of_frames(protocol: dict) -> list[str]:
    parts = [protocol["sampling"]]
    if protocol.get("stride", 1) != 1:
        parts.append(f"stride {protocol['stride']}")
    if "image_size" in protocol:
        parts.append(f"{protocol['image_size']} px")
    if "image_size" in protocol and protocol.get("resize"):
        parts.append(protocol["resize"])
    return parts


def _of_classification(found: dict) -> list[str]:
    sets, num_prompts = found["templates"]["sets"], len(found["templates"]["prompts"])
    plural = "s" if num_prompts > 1 else ""
    return [
        f"{' + '.join(map(str, sets))} ({num_prompts} prompt{plural})",
        f"{found['num_classes']:,} classes",
    ]


def _of_retrieval(found: dict) -> list[str]:
    most = f", at most {found['max_texts']} a clip" if found.get("max_texts") else ""
    return [f"texts: {found['texts']}{most}, {found['num_texts']:,} in all"]


def _of_captioning(found: dict) -> list[str]:
    prompt = [f"prompt “{found['prompt']}”"] if found.get("prompt") else []
    missing = found.get("not_computed") or []
    reasons = missing.items() if isinstance(missing, dict) else [("not computed", each) for each in missing]
    return [found["decoding"], *prompt, *(f"{name}: {reason}" for name, reason in reasons)]


def _of_head(found: dict) -> list[str]:
    classes = [f"{found['num_classes']:,} classes"] if "num_classes" in found else []
    answers = ["answers written freely"] if found.get("answers") == "written" else []
    blind = ["blind"] if found["settings"].get("blind") else []
    return [found["task"].replace("_", " "), *(answers or classes), *blind]


OF_TASK: dict[str, Callable[[dict], list[str]]] = {
    "classification": _of_classification,
    "retrieval": _of_retrieval,
    "captioning": _of_captioning,
    "head": _of_head,
}


# Of published figures


def published_rows(dataset: str, split: str, task: str) -> list[Row]:
    """A row for the figures of one model, setting, protocol and source. Nobody publishes training splits.

    Beside a learned task stands what others have learned, and nothing zero-shot.
    """
    if dataset not in BENCHMARKS or split.startswith("train"):
        return []
    metrics = [column.metric for column in COLUMNS[task]]
    rows: dict[tuple[str, ...], list[Published]] = {}
    for figure in published(dataset):
        if figure.metric in metrics and not (task == "head" and figure.setting == "zero-shot"):
            rows.setdefault((figure.setting, figure.model, figure.protocol, figure.source), []).append(figure)
    ordered = sorted(rows.values(), key=lambda figures: SETTINGS.index(figures[0].setting))
    return [_published_row(figures, metrics) for figures in ordered]


def _published_row(figures: list[Published], metrics: list[str]) -> Row:
    first, values = figures[0], {figure.metric: figure.value for figure in figures}
    return Row(
        name=first.model,
        about="",
        reading=first.setting,
        frames=NOTHING,
        views=NOTHING,
        protocol=first.protocol or "protocol not stated",
        examples=NOTHING,
        values=[values.get(metric) for metric in metrics],
        badge="published",
        source=first.source,
    )
