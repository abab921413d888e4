"""How far a run is, on stderr: a bar in a terminal, now and then a plain line in a file."""

import sys
import time
from collections.abc import Mapping
from datetime import timedelta

from tqdm import tqdm

SECONDS_A_REFRESH = 0.25
SECONDS_A_LINE = 30.0


def summary(figures: Mapping[str, float]) -> str:
    """What is worth a place beside the bar; speed, waiting and MFU where they are known."""
    parts = [f"loss {figures['loss']:.3f}"]
    if (speed := figures.get("samples_per_second")) is not None:
        parts.append(f"{speed:.{0 if speed >= 10 else 1}f} samples/s")
    if (wait := figures.get("data_wait")) is not None:
        parts.append(f"wait {wait:.0%}")
    if (mfu := figures.get("mfu")) is not None:
        parts.append(f"MFU {mfu:.0%}")
    return ", ".join(parts)


class Bar:
    """Redrawn in its place, at most four times a second."""

    def __init__(self, name: str, *, first_step: int, num_steps: int):
        self._bar = tqdm(
            total=num_steps,
            initial=first_step,
            desc=name,
            unit="step",
            dynamic_ncols=True,
            mininterval=SECONDS_A_REFRESH,
            miniters=1,
        )

    def step(self, text: str) -> None:
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update()

    def note(self, text: str) -> None:
        """A line above the bar."""
        self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        self._bar.close()


class Lines:
    """What a bar would show, for a file: a line for the first step, the last, and every `seconds` between."""

    def __init__(self, name: str, *, first_step: int, num_steps: int, seconds: float = SECONDS_A_LINE):
        self._name, self._num_steps, self._seconds = name, num_steps, seconds
        self._first, self._done = first_step, first_step
        self._start = time.perf_counter()
        self._due = self._start  # when the next line is
        self._pending: str | None = None  # what the last line does not say yet

    def step(self, text: str) -> None:
        self._done += 1
        self._pending = text
        if time.perf_counter() >= self._due:
            self._write()

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._pending is not None:
            self._write()

    def _write(self) -> None:
        now = time.perf_counter()
        left = (now - self._start) / (self._done - self._first) * (self._num_steps - self._done)
        share = self._done / self._num_steps
        place = f"step {self._done}/{self._num_steps} ({share:.0%})"
        self.note(f"{self._name}: {place}, {self._pending}, {timedelta(seconds=round(left))} left")
        self._pending, self._due = None, now + self._seconds


def open_progress(name: str, *, first_step: int, num_steps: int) -> Bar | Lines:
    """A bar if stderr is a terminal; carriage returns make one endless line of a file."""
    kind = Bar if sys.stderr.isatty() else Lines
    return kind(name, first_step=first_step, num_steps=num_steps)
