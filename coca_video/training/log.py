"""Where a run's figures go: a JSON-lines file, the trackers that draw curves, and the progress bar."""

import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from coca_video.ops.distributed import in_first
from coca_video.run_log import EVALUATION, LOG_NAME, drop_steps_from, write_line
from coca_video.training.progress import open_progress, summary
from coca_video.training.trackers import TensorBoard, Tracker, Wandb, WandbMode

Item = TypeVar("Item")

MEASURED = {"samples_per_second", "data_wait", "memory_gb", "mfu"}  # what differs between equal runs


@dataclass
class LogConfig:
    every: int = 1  # steps a line
    wandb_project: str | None = None  # None = nothing goes to Weights & Biases
    wandb_mode: WandbMode | None = None  # None = as the variable WANDB_MODE says, online without it

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every must be at least 1, got {self.every}")
        if self.wandb_project == "":
            raise ValueError("wandb_project must have a name, got ''; null = none")


class RunLog:
    """Writes `log.jsonl` (a line every config.every steps) and the trackers' files into a run's folder.

    What was logged of steps from `first_step` on is forgotten: it happens again.
    device: whose memory is told. peak_flops: a second, of all devices together; None = not known.
    settings: what a tracker may show as the run's.
    Raises InputError if a tracker cannot begin.
    """

    def __init__(
        self,
        folder: Path,
        config: LogConfig | None = None,
        *,
        first_step: int,
        num_steps: int,
        name: str,
        device: torch.device = torch.device("cpu"),
        peak_flops: float | None = None,
        settings: dict | None = None,
    ):
        config = config or LogConfig()
        folder.mkdir(parents=True, exist_ok=True)
        drop_steps_from(folder / LOG_NAME, first_step)
        self._every, self._num_steps = config.every, num_steps
        self._trackers = _open_trackers(folder, config, first_step=first_step, name=name, settings=settings)
        self._lines = open(folder / LOG_NAME, "a", encoding="utf-8")
        self._progress = open_progress(name, first_step=first_step, num_steps=num_steps)
        self._meter = _Meter(device, peak_flops)
        self._measured: dict[str, float] = {}

    def step(
        self,
        step: int,
        figures: Mapping[str, float],
        *,
        num_samples: int,
        waited_seconds: float = 0.0,
        flops: float | None = None,
    ) -> None:
        """Figures of one finished step, "loss" among them. To be called for every step.

        num_samples, flops: of all processes together. waited_seconds: until the batch was there.
        A line's own figures are those of its step; speed, waiting and MFU are since the line before.
        """
        self._meter.count(num_samples, waited_seconds, flops)
        if (step + 1) % self._every == 0 or step + 1 == self._num_steps:
            self._measured = self._meter.take()
            self._write(step, {**figures, **self._measured})
        self._progress.step(summary({**figures, **self._measured}))

    def skipped(self, step: int, reason: str) -> None:
        """A step whose gradient was not applied: it has no line, for its figures are none of the run's."""
        self.note(f"step {step} skipped: {reason}")
        self._progress.step("skipped")

    def evaluation(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures of the model as it is after `step`; "eval/" is put before their names.

        The time since that step is not the next one's.
        """
        figures = {EVALUATION + key.removeprefix(EVALUATION): value for key, value in figures.items()}
        self._write(step, figures)
        named = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
        self.note(f"after step {step}: {named}")
        self.restart_clock()

    def restart_clock(self) -> None:
        """What has passed since the last step, such as a save, is not the next step's."""
        self._meter.restart_clock()

    def note(self, text: str) -> None:
        """A line for the reader of the progress bar, above it."""
        self._progress.note(text)

    def close(self) -> None:
        self._progress.close()
        self._lines.close()
        for tracker in self._trackers:
            tracker.close()

    def _write(self, step: int, figures: Mapping[str, float]) -> None:
        write_line(self._lines, {"step": step, **figures})
        for tracker in self._trackers:
            tracker.write(step, figures)


class SilentLog:
    """The log of every process but the first: touches no file and says nothing."""

    def step(
        self,
        step: int,
        figures: Mapping[str, float],
        *,
        num_samples: int,
        waited_seconds: float = 0.0,
        flops: float | None = None,
    ) -> None: ...

    def skipped(self, step: int, reason: str) -> None: ...

    def evaluation(self, step: int, figures: Mapping[str, float]) -> None: ...

    def restart_clock(self) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


def open_log(
    folder: Path,
    config: LogConfig,
    *,
    first_step: int,
    num_steps: int,
    name: str,
    device: torch.device = torch.device("cpu"),
    peak_flops: float | None = None,
    settings: dict | None = None,
) -> RunLog | SilentLog:
    """The log of a run of several processes, of which the first one writes it. All call, and raise alike."""
    about = {"first_step": first_step, "num_steps": num_steps, "name": name}
    how = {"device": device, "peak_flops": peak_flops, "settings": settings}
    return in_first(lambda: RunLog(folder, config, **about, **how)) or SilentLog()


def step_figures(
    losses: Mapping[str, float], *, gradient_norm: float, rates: Mapping[str, float]
) -> dict[str, float]:
    """What is logged of a step. rates: the learning rate of each group of parameters; "lr" is the largest."""
    figures = dict(losses)
    if "scale" in losses:
        figures["temperature"] = 1 / losses["scale"] if losses["scale"] else math.inf
    figures |= {"gradient_norm": gradient_norm, "lr": max(rates.values())}
    return figures | {f"lr/{group}": rate for group, rate in rates.items()}


def timed(items: Iterable[Item]) -> Iterator[tuple[Item, float]]:
    """Each item with the seconds that one has waited for it."""
    start = time.perf_counter()
    for item in items:
        yield item, time.perf_counter() - start
        start = time.perf_counter()


def peak_memory_gb(device: torch.device) -> float:
    """The most that this process has held at once, in 1e9 bytes: on CUDA its tensors there, else all."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024  # man 2 getrusage
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9


class _Meter:
    """What the steps since the last line have done, and how long they took."""

    def __init__(self, device: torch.device, peak_flops: float | None):
        self._device, self._peak_flops = device, peak_flops
        self._begin()
        self.restart_clock()

    def restart_clock(self) -> None:
        self._mark = time.perf_counter()

    def count(self, num_samples: int, waited_seconds: float, flops: float | None) -> None:
        """One step, which has just ended."""
        self._seconds += time.perf_counter() - self._mark
        self._num_samples += num_samples
        self._waited += waited_seconds
        self._flops = None if flops is None or self._flops is None else self._flops + flops
        self.restart_clock()

    def take(self) -> dict[str, float]:
        """The figures of MEASURED, of the steps counted so far, and begins anew."""
        figures = {
            "samples_per_second": self._num_samples / self._seconds,
            "data_wait": min(1.0, self._waited / self._seconds),  # one may have waited before the clock began
            "memory_gb": peak_memory_gb(self._device),
        }
        if self._flops is not None and self._peak_flops is not None:
            figures["mfu"] = self._flops / (self._seconds * self._peak_flops)
        self._begin()
        return figures

    def _begin(self) -> None:
        self._seconds, self._num_samples, self._waited = 0.0, 0, 0.0
        self._flops: float | None = 0.0


def _open_trackers(
    folder: Path, config: LogConfig, *, first_step: int, name: str, settings: dict | None
) -> list[Tracker]:
    trackers: list[Tracker] = []
    if config.wandb_project is not None:  # first: it may refuse
        trackers.append(
            Wandb(
                folder,
                project=config.wandb_project,
                mode=config.wandb_mode,
                name=name,
                settings=settings,
            )
        )
    return [*trackers, TensorBoard(folder, first_step=first_step)]
