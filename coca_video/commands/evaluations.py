"""Evaluations on the way: what training is given to call, made of names of benchmarks."""

from collections.abc import Iterator
from pathlib import Path

import torch

from coca_video.cli import load_option
from coca_video.config import TrainConfig
from coca_video.errors import InputError
from coca_video.evaluation.benchmark import (
    BenchmarkConfig,
    Outcome,
    check_not_seen,
    check_records,
    evaluate_benchmark,
)
from coca_video.evaluation.results import each_figure
from coca_video.evaluation.subject import CocaSubject
from coca_video.loading import load
from coca_video.tasks.catalogue import attach
from coca_video.tasks.task import Task
from coca_video.training.loop import Evaluation


def open_evaluations(
    config: TrainConfig, device: torch.device, *, trained_on: list[str], task: Task | None = None
) -> Evaluation | None:
    """None where there are none.

    trained_on: data sets that the evaluated weights will have seen.
    task: what the run teaches, if not CoCa's own losses; once it knows its classes.
    Raises InputError, at the start and not after the first thousand steps, for what would fail then: unknown
    evaluations, data that is not there or was trained on, a figure `loop.best` that none of them gives.
    """
    if bool(config.evaluations) != bool(config.loop.evaluate_every):
        found = f"got evaluations={config.evaluations} and evaluate_every={config.loop.evaluate_every}"
        raise InputError(f"evaluations and loop.evaluate_every come together, {found}")
    benchmarks = _benchmarks(config.evaluations)
    for name, benchmark in benchmarks.items():
        _check_data(name, benchmark, trained_on, task)
    _check_best(config.loop.best, benchmarks)
    return _Evaluations(benchmarks, Path(config.output), device, task) if benchmarks else None


def _benchmarks(names: list[str]) -> dict[str, BenchmarkConfig]:
    """By the names that their figures begin with."""
    found: dict[str, BenchmarkConfig] = {}
    for name in names:
        short = Path(name).stem
        if short in found:
            raise InputError(f"evaluations: {name} would be the second one whose figures begin with {short}/")
        found[short] = load_option(BenchmarkConfig, "evaluate", name)
    return found


def _check_data(name: str, benchmark: BenchmarkConfig, trained_on: list[str], task: Task | None) -> None:
    if benchmark.head and task is None:
        raise InputError(f"evaluations: {name} is of a task's head, and this run learns no task")
    if not Path(benchmark.manifest).exists():
        raise InputError(f"evaluations: {name} needs {benchmark.manifest}, which does not exist")
    check_not_seen(benchmark.manifest, trained_on, who=f"evaluations: {name}: this run")
    check_records(benchmark, task)


def _check_best(best: str | None, benchmarks: dict[str, BenchmarkConfig]) -> None:
    """Which figures there are shows when they are; what they begin with is known before."""
    if best is None:
        return
    if not benchmarks:
        raise InputError(
            f"loop.best={best}: needs evaluations and loop.evaluate_every, which give the figure"
        )
    known = [f"{name}/{task}/" for name, each in benchmarks.items() for task in each.tasks()]
    if not best.removeprefix("-").startswith(tuple(known)):
        raise InputError(f"loop.best={best}: no such figure; they begin with {', '.join(known)}")


class _Evaluations:
    """Results of each checkpoint lie in evaluate/, its name, and the benchmark's."""

    def __init__(
        self, benchmarks: dict[str, BenchmarkConfig], run: Path, device: torch.device, task: Task | None
    ):
        self.benchmarks, self.run, self.device, self.task = benchmarks, run, device, task

    def __call__(self, checkpoint: Path) -> dict[str, float]:
        loaded = load(checkpoint)
        if self.task:
            attach(loaded, self.task)
        loaded.model.to(self.device)
        figures: dict[str, float] = {}
        for name, benchmark in self.benchmarks.items():
            subject = CocaSubject(loaded, self.device, token_cache=benchmark.token_cache, task=self.task)
            folder = self.run / "evaluate" / checkpoint.name / name
            outcome = evaluate_benchmark(subject, benchmark, output=folder)
            figures |= dict(_figures(name, outcome)) if outcome else {}
        return figures


def _figures(name: str, outcome: Outcome) -> Iterator[tuple[str, float]]:
    """'emoji/retrieval/text_to_video/R@1': those of the reading that the result leads with."""
    lead = outcome.result["protocol"]["reading"]
    for task, found in outcome.result["tasks"].items():
        if lead in found["figures"]:  # no captions are written from a mean of frames
            for names, value in each_figure(found["figures"][lead], name, task):
                yield "/".join(names), value
