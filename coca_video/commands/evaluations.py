"""Evaluations on the way: what training is given to call, made of names of benchmarks."""

from collections.abc import Iterator
from pathlib import Path

import torch

from coca_video.cli import load_option
from coca_video.config import TrainConfig
from coca_video.errors import InputError
from coca_video.evaluation.benchmark import BenchmarkConfig, Outcome, evaluate_benchmark
from coca_video.evaluation.subject import CocaSubject
from coca_video.loading import load
from coca_video.training.loop import Evaluation


def open_evaluations(config: TrainConfig, device: torch.device) -> Evaluation | None:
    """None where there are none. Raises InputError for unknown ones, and for data that is not there."""
    if bool(config.evaluations) != bool(config.loop.evaluate_every):
        found = f"got evaluations={config.evaluations} and evaluate_every={config.loop.evaluate_every}"
        raise InputError(f"evaluations and loop.evaluate_every come together, {found}")
    benchmarks = {
        Path(name).stem: load_option(BenchmarkConfig, "evaluate", name) for name in config.evaluations
    }
    for name, benchmark in benchmarks.items():
        if not Path(benchmark.manifest).exists():
            raise InputError(f"evaluations: {name} needs {benchmark.manifest}, which does not exist")
    return _Evaluations(benchmarks, Path(config.output), device) if benchmarks else None


class _Evaluations:
    """Results of each checkpoint lie in evaluate/, its name, and the benchmark's."""

    def __init__(self, benchmarks: dict[str, BenchmarkConfig], run: Path, device: torch.device):
        self.benchmarks, self.run, self.device = benchmarks, run, device

    def __call__(self, checkpoint: Path) -> dict[str, float]:
        loaded = load(checkpoint)
        loaded.model.to(self.device)
        figures: dict[str, float] = {}
        for name, benchmark in self.benchmarks.items():
            subject = CocaSubject(loaded, self.device, token_cache=benchmark.token_cache)
            folder = self.run / "evaluate" / checkpoint.name / name
            outcome = evaluate_benchmark(subject, benchmark, output=folder)
            figures |= dict(_figures(name, outcome)) if outcome else {}
        return figures


def _figures(name: str, outcome: Outcome) -> Iterator[tuple[str, float]]:
    """'emoji/retrieval/text_to_video/R@1': those of the reading that the result leads with."""
    lead = outcome.result["protocol"]["reading"]
    for task, found in outcome.result["tasks"].items():
        if lead in found["figures"]:  # no captions are written from a mean of frames
            yield from _flat(found["figures"][lead], f"{name}/{task}")


def _flat(figures: dict, prefix: str) -> Iterator[tuple[str, float]]:
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}/{name}")
        else:
            yield f"{prefix}/{name}", value
