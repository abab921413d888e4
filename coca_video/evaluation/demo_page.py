"""The page that ends the demo: curves, figures and predictions in one HTML file that loads nothing."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coca_video.errors import InputError
from coca_video.evaluation.pages import data_uri, page_template
from coca_video.files import write_whole
from coca_video.metrics.captioning import tokenize
from coca_video.run_log import read_log


@dataclass
class Measure:
    """A row of the results: where its value lies in a setting's figures, and what to hold it against."""

    task: str
    name: str
    keys: tuple[str, ...]  # below the reading, as in ["classification"]["figures"]["video"]["top1"]
    unit: str = "%"
    decimals: int = 1
    is_headline: bool = False  # also a tile at the top of the page
    maximum: int = 100  # of the tile's bars
    reference: float | None = None  # of REFERENCE's model, one for all views
    chance: float | None = None


# It scored the same on the first frame and on the mean of frames.
REFERENCE = (
    "a small CNN and a 2-layer text transformer, trained on the same pictures by a contrastive loss alone "
    "(64 px, about 300 steps of 256 pairs); this project's own measurement on 2 CPU cores"
)
V2T, T2V = "video_to_text", "text_to_video"
MEASURES = (
    Measure("actions", "top-1", ("top1",), is_headline=True, reference=53.8, chance=5.6),
    Measure("actions", "top-5", ("top5",), reference=78.7),
    Measure("retrieval", "clip → name, R@1", (V2T, "R@1"), is_headline=True, reference=35.6, chance=0.45),
    Measure("retrieval", "clip → name, R@5", (V2T, "R@5"), reference=67.6),
    Measure("retrieval", "clip → name, R@10", (V2T, "R@10")),
    Measure("retrieval", "clip → name, median rank", (V2T, "median_rank"), unit=""),
    Measure("retrieval", "name → clip, R@1", (T2V, "R@1"), is_headline=True, reference=34.7, chance=0.45),
    Measure("retrieval", "name → clip, R@5", (T2V, "R@5"), reference=65.3),
    Measure("retrieval", "name → clip, R@10", (T2V, "R@10")),
    Measure("retrieval", "name → clip, median rank", (T2V, "median_rank"), unit=""),
    Measure("captions", "CIDEr-D", ("cider_d",), unit="of 10", decimals=2, is_headline=True, maximum=10),
    Measure("captions", "exact match", ("exact_match",)),
    Measure("captions", "distinct captions", ("distinct_ratio",), unit="of 1", decimals=2),
)
TASKS = {
    "actions": "Actions: which of the classes, zero-shot by prompts",
    "retrieval": "Retrieval: a clip among all names, a name among all clips",
    "captions": "Captions: the name written out",
}
IN_RESULTS = {"actions": "classification", "retrieval": "retrieval", "captions": "captioning"}
VIEWS = {"video": "video", "first_frame": "first frame", "mean_of_frames": "mean of frames"}
SETTINGS = {"transfer": "pictures only", "video": "then clips of other packs"}


def write_demo_page(
    path: Path, *, title: str, runs: dict[str, Path], results: dict, predictions: list[dict]
) -> None:
    """Write the page to `path`, whole or not at all.

    runs: name -> a training run's folder; its log becomes curves.
    results: {"benchmark": name, "settings": {"transfer": result, "video": result}}, the results being those
        of `evaluation.benchmark` on the emoji benchmark; one setting may be absent.
    predictions: those of the last setting, one dictionary a clip; some are shown, with their videos inside.

    Raises InputError, naming the file, for a log or a clip that cannot be read.
    """
    settings = {name: results["settings"][name] for name in SETTINGS if name in results["settings"]}
    logs = {name: _read_run(folder) for name, folder in runs.items()}
    page = page_template("demo_page.html.j2").render(
        title=title,
        benchmark=results["benchmark"],
        settings=settings,
        about=SETTINGS,
        final=list(settings)[-1],
        views=VIEWS,
        tiles=[_tile(measure, settings) for measure in MEASURES if measure.is_headline],
        tasks={task: _task_rows(task, settings) for task in TASKS},
        about_tasks=TASKS,
        of=_of,
        is_partial=_is_partial,
        is_any_partial=any(_is_partial(_of(result, task)) for result in settings.values() for task in TASKS),
        reference=REFERENCE,
        panels=[_panel(key, name, unit, logs) for key, (name, unit) in CURVES.items()],
        runs={name: _run_summary(log) for name, log in logs.items()},
        plot=PLOT,
        smoothing=SMOOTHING,
        galleries=[_gallery(task, is_right, predictions) for task, is_right in GALLERIES.items()],
    )
    write_whole(path, page)


# Figures


def _of(result: dict, task: str) -> dict:
    """What a result says of one of TASKS."""
    return result["tasks"][IN_RESULTS[task]]


def _is_partial(task: dict) -> bool:
    """Another pack than the test's has no number to reach."""
    return task["num_expected"] is not None and task["num_evaluated"] < task["num_expected"]


def _value(measure: Measure, result: dict, view: str) -> float | None:
    """None where a task does not judge a view."""
    figures = _of(result, measure.task)["figures"]
    if view not in figures:
        return None
    value = figures[view]
    for key in measure.keys:
        value = value[key]
    return value


def _shown(value: float | None, measure: Measure) -> str:
    return "–" if value is None else f"{value:.{measure.decimals}f}"


def _task_rows(task: str, settings: dict[str, dict]) -> list[dict]:
    """A row a measure: its name, the values of every setting's views, reference and chance."""
    return [
        {
            "name": f"{measure.name}, {measure.unit}" if measure.unit else measure.name,
            "values": [
                [_shown(_value(measure, result, view), measure) for view in VIEWS]
                for result in settings.values()
            ],
            "reference": _shown(measure.reference, measure),
            "chance": "–" if measure.chance is None else f"{measure.chance:g}",
        }
        for measure in MEASURES
        if measure.task == task
    ]


def _tile(measure: Measure, settings: dict[str, dict]) -> dict:
    """A headline and its bars, the last setting's first."""
    values = {name.upper(): _value(measure, result, "video") for name, result in reversed(settings.items())}
    bars = [(name, value, _shown(value, measure)) for name, value in values.items()]
    if measure.reference is not None:
        bars.append(("reference", measure.reference, _shown(measure.reference, measure)))
    if measure.chance is not None:
        bars.append(("chance", measure.chance, f"{measure.chance:g}"))
    return {
        "task": measure.task,
        "name": measure.name,
        "unit": measure.unit,
        "bars": [(name, 100 * value / measure.maximum, shown) for name, value, shown in bars],
        "is_partial": any(_is_partial(_of(result, measure.task)) for result in settings.values()),
    }


# Curves

CURVES = {
    "loss": ("Total loss", "nats, weighted sum"),
    "caption": ("Captioning loss", "nats a token"),
    "contrastive": ("Contrastive loss", "nats"),
    "gradient_norm": ("Gradient norm", "before clipping"),
    "lr": ("Learning rate", "as scheduled"),
    "samples_per_second": ("Throughput", "samples a second"),
}
LOSSES = {"caption", "contrastive"}  # a run that gives one no weight does not log it
PLOT = {"width": 300, "height": 160}  # user units of the SVG, about one pixel each
SMOOTHING = 0.04  # of a run's steps: the window of the running mean
MAX_POINTS = 500  # a line: more could not be told apart at PLOT's width

Log = dict[str, np.ndarray]  # by figure, and "step"


def _read_run(folder: Path) -> Log:
    path = folder / "log.jsonl"
    try:
        lines = read_log(folder)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot read this log: {error}") from error
    if not lines:
        raise InputError(f"{path}: the log is empty; it needs at least one step")
    needed = [key for key in ("step", *CURVES) if key not in LOSSES]
    if missing := [key for key in needed if any(key not in line for line in lines)]:
        raise InputError(f"{path}: a line has no {missing[0]!r}; needed are {', '.join(needed)}")
    logged = [key for key in ("step", *CURVES) if key in needed or any(key in line for line in lines)]
    return {key: np.array([line.get(key, np.nan) for line in lines], dtype=float) for key in logged}


def _run_summary(log: Log) -> dict[str, float]:
    rate = float(np.median(log["samples_per_second"]))
    return {"num_steps": len(log["step"]), "samples_per_second": rate}


@dataclass
class Curve:
    """One figure of one run, where it is finite: a run that diverged still has a page."""

    run: str
    steps: np.ndarray
    raw: np.ndarray
    smooth: np.ndarray
    last: str


def _curve(run: str, log: Log, key: str) -> Curve:
    if key not in log:
        nothing = np.array([])
        return Curve(run, nothing, nothing, nothing, "none")
    steps, values = log["step"], log[key]
    finite = np.isfinite(values)
    smooth = _running_mean(values[finite])
    last = f"{smooth[-1]:.3g}" if finite[-1] else "not finite"
    return Curve(run, steps[finite], values[finite], smooth, last)


def _panel(key: str, name: str, unit: str, logs: dict[str, Log]) -> dict:
    """One figure of all runs over their steps, in the coordinates of PLOT; the y axis begins at 0."""
    curves = [_curve(run, log, key) for run, log in logs.items()]
    right = max((log["step"].max() for log in logs.values()), default=0) or 1
    top = 1.05 * max(map(_highest, curves), default=0) or 1
    return {
        "name": name,
        "unit": unit,
        "x_ticks": [(PLOT["width"] * tick / right, f"{tick:,g}") for tick in _ticks(right)],
        "y_ticks": [(PLOT["height"] * (1 - tick / top), f"{tick:,g}") for tick in _ticks(top)],
        "lines": [
            {
                "run": curve.run,
                "raw": _points(curve.steps / right, curve.raw / top),
                "smooth": _points(curve.steps / right, curve.smooth / top),
                "last": curve.last,
            }
            for curve in curves
        ],
    }


def _highest(curve: Curve) -> float:
    """The top of a curve, but for a few outliers that would flatten the rest: they leave the plot."""
    return max(curve.smooth.max(), np.quantile(curve.raw, 0.99)) if len(curve.raw) else 0.0


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Means over a centred window, which is cut at the ends."""
    half = round(SMOOTHING * len(values)) // 2
    sums = np.concatenate([[0.0], np.cumsum(values)])
    start = np.maximum(np.arange(len(values)) - half, 0)
    end = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (sums[end] - sums[start]) / (end - start)


def _ticks(top: float) -> list[float]:
    """Two to six round numbers from 0 to `top`, 1, 2 or 5 times a power of ten apart."""
    power = 10.0 ** math.floor(math.log10(top / 5))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= top / 5)
    return [i * step for i in range(math.floor(top / step) + 1)]


def _points(x: np.ndarray, y: np.ndarray) -> str:
    """Fractions of the axes -> the points of an SVG polyline."""
    kept = np.unique(np.linspace(0, len(x) - 1, MAX_POINTS).round().astype(int)) if len(x) else []
    return " ".join(f"{PLOT['width'] * x[i]:.1f},{PLOT['height'] * (1 - y[i]):.1f}" for i in kept)


# Gallery

NUM_EACH = 6  # right ones and wrong ones shown of a task
SEED = 0
# By task: was the first answer right? None: the clip is not in the task.
GALLERIES: dict[str, Callable[[dict], bool | None]] = {
    "retrieval": lambda clip: clip["rank"] == 1 if "rank" in clip else None,
    "actions": lambda clip: clip["top_classes"][0][0] == _action(clip) if "top_classes" in clip else None,
}


def _gallery(task: str, is_right: Callable[[dict], bool | None], predictions: list[dict]) -> dict:
    """A fair choice: drawn blindly among the right ones, and as many among the wrong ones."""
    right = [clip for clip in predictions if is_right(clip) is True]
    wrong = [clip for clip in predictions if is_right(clip) is False]
    rng = random.Random(SEED)
    drawn = [(True, clip) for clip in rng.sample(right, min(NUM_EACH, len(right)))]
    drawn += [(False, clip) for clip in rng.sample(wrong, min(NUM_EACH, len(wrong)))]
    return {
        "task": task,
        "num_right": len(right),
        "num_clips": len(right) + len(wrong),
        "num_right_shown": sum(right for right, _ in drawn),
        "cards": [_card(clip, is_right=right) for right, clip in drawn],
    }


def _action(clip: dict) -> str | None:
    return clip["labels"].get("action")


def _card(clip: dict, *, is_right: bool) -> dict:
    # CAPTIONS judges the clips of RETRIEVAL; the names of others hold a skin tone.
    is_judged = "rank" in clip
    return {
        **clip,
        "action": _action(clip),
        "is_right": is_right,
        "caption_is_right": tokenize(clip["caption"]) == tokenize(clip["text"]) if is_judged else None,
        "source": data_uri(Path(clip["path"]), "clip"),
    }
