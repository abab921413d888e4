"""`tools/evaluate.py`: a model's figures on a benchmark."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from coca_video.cli import PARTIAL, load_config, pick_device
from coca_video.commands.scan import printable
from coca_video.config import EvaluateConfig
from coca_video.errors import InputError
from coca_video.evaluation.benchmark import evaluate_benchmark, is_complete
from coca_video.evaluation.open_clip_subject import PREFIX, load_open_clip_subject
from coca_video.evaluation.results import each_figure
from coca_video.evaluation.subject import CocaSubject, Subject
from coca_video.loading import load
from coca_video.ops.distributed import joined
from coca_video.tasks.catalogue import task_of
from coca_video.tasks.task import Task

NUM_PRINTED = 5  # examples that could not be read


def main(own: Sequence[type[Task]] = ()) -> int:
    """own: tasks that are not in the catalogue, by which checkpoints may call them."""
    config = load_config(EvaluateConfig, "evaluate", sys.argv[1:])
    device = pick_device(config.device)
    output = Path(config.output or _default_output(config))
    subject = _subject(config, device, own)
    with joined():
        outcome = evaluate_benchmark(subject, config.evaluate, output=output)
    if outcome is None:
        return 0
    print(summary(outcome.result))
    print(f"written: {output / 'result.json'}, {output / 'predictions.jsonl'}")
    return 0 if is_complete(outcome.result) else PARTIAL


def _subject(config: EvaluateConfig, device: torch.device, own: Sequence[type[Task]]) -> Subject:
    if not config.checkpoint.startswith(PREFIX):
        checkpoint = load(config.checkpoint)
        task = task_of(checkpoint, own) if config.evaluate.head else None
        checkpoint.model.to(device)
        checkpoint.model.image_encoder.merged_per_block = config.merged_per_block
        return CocaSubject(checkpoint, device, token_cache=config.evaluate.token_cache, task=task)
    for name, value in (
        ("evaluate.token_cache", config.evaluate.token_cache),
        ("merged_per_block", config.merged_per_block),
    ):
        if value:
            raise InputError(f"{name} is for CoCa checkpoints, not for {config.checkpoint}")
    return load_open_clip_subject(config.checkpoint, device)


def _default_output(config: EvaluateConfig) -> Path:
    """Beside the run that is evaluated; what is no folder here (a file, a Hub id) has none.

    The same data may be evaluated zero-shot and by a head: neither replaces the other's result.
    """
    run = Path(config.checkpoint)
    folder = run if run.is_dir() else Path("runs") / re.sub(r"[/:]+", "-", config.checkpoint)
    manifest = Path(config.evaluate.manifest).stem
    return folder / "evaluate" / (f"{manifest}-head" if config.evaluate.head else manifest)


def summary(result: dict) -> str:
    """The figures as a small table."""
    readings = list(next(iter(result["tasks"].values()))["figures"])
    rows = [f"{result['title']} {result['split']}, {result['model']['checkpoint']}".replace("  ", " ")]
    rows.append(f"{'':44}" + "".join(f"{reading:>16}" for reading in readings))
    for name, task in result["tasks"].items():
        of = "" if task["num_expected"] is None else f" of {task['num_expected']:,}"
        title = f"{name} ({task['task'].replace('_', ' ')})" if name == "head" else name
        rows.append(f"{title}: {task['num_evaluated']:,}{of} evaluated")
        rows += _figures(task["figures"], readings)
        for reading, figures in task.get("dual_softmax", {}).items():
            rows += _figures({reading: figures}, readings, suffix=" (dual softmax)")
    rows += [f"could not be read: {printable(each['reason'])}" for each in result["failed"][:NUM_PRINTED]]
    if len(result["failed"]) > NUM_PRINTED:
        rows.append(f"... and {len(result['failed']) - NUM_PRINTED} more")
    return "\n".join(rows + [f"not official: {reason}" for reason in result["not_official_because"]])


def _figures(figures: dict[str, dict], readings: list[str], *, suffix: str = "") -> list[str]:
    """A line a figure, a column a reading."""
    flat = {
        reading: {_named(names): value for names, value in each_figure(of_reading)}
        for reading, of_reading in figures.items()
    }
    names = dict.fromkeys(name for each in flat.values() for name in each)
    return [
        f"  {name + suffix:42}"
        + "".join(
            f"{_shown(flat[each][name]) if name in flat.get(each, {}) else '':>16}" for each in readings
        )
        for name in names
    ]


def _named(names: tuple[str, ...]) -> str:
    *groups, name = names
    return " ".join([*(group.replace("_", " ") for group in groups), name])


def _shown(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"
