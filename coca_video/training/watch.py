"""Steps that must not be applied: not finite, or far from what came before."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from statistics import median
from typing import Any

from coca_video.errors import InputError
from coca_video.ops.distributed import by_first
from coca_video.run_log import write_line

BAD_STEPS_NAME = "bad_steps.jsonl"
WATCHED = ("loss", "gradient_norm")
MIN_LEVEL = 20  # accepted steps before anything can be a spike


class OnTrouble(str, Enum):
    stop = "stop"
    skip = "skip"  # the step is not applied, and the run goes on


@dataclass
class WatchConfig:
    on_trouble: OnTrouble = OnTrouble.stop
    spike_factor: float = 0  # times the median of the last steps' loss or gradient norm; 0 = no such limit
    window: int = 100  # steps that the median is of
    max_skipped: int = 10  # in a row

    def __post_init__(self) -> None:
        if self.spike_factor != 0 and not self.spike_factor > 1:
            raise ValueError(f"spike_factor must be above 1, or 0 for none, got {self.spike_factor}")
        if self.window < MIN_LEVEL:
            raise ValueError(f"window must be at least {MIN_LEVEL}, got {self.window}")
        if self.max_skipped < 1:
            raise ValueError(f"max_skipped must be at least 1, got {self.max_skipped}")


class Watch:
    """Judges each step by its figures, which are those of all processes and the same in each.

    So all processes come to the same verdict without asking each other.
    """

    def __init__(self, config: WatchConfig):
        self._config = config
        self._levels = {name: deque[float](maxlen=config.window) for name in WATCHED}
        self._skipped_in_a_row = 0
        self.num_skipped = 0  # since the run began

    def judge(self, figures: Mapping[str, float]) -> str | None:
        """Why this step is not to be applied; None if it may be, and counts from then on.

        figures: "loss" and "gradient_norm" (before clipping).
        """
        if not all(math.isfinite(figures[name]) for name in WATCHED):
            return "not finite"
        for name in WATCHED:
            if reason := self._spike(name, figures[name]):
                return reason
        for name in WATCHED:
            self._levels[name].append(figures[name])
        self._skipped_in_a_row = 0
        return None

    def report(
        self,
        folder: Path,
        step: int,
        reason: str,
        figures: Mapping[str, float],
        keys: Sequence[str],
    ) -> None:
        """Writes a refused step down; all processes call, the first one writes.

        keys: of all samples of the batch, known to the first. Raises InputError if the run is to end: before
            its weights replace the last good checkpoint.
        """
        by_first(lambda: _write_down(folder / BAD_STEPS_NAME, step, reason, figures, keys))
        found = f"loss {figures['loss']}, gradient norm {figures['gradient_norm']}"
        hint = "the last checkpoint is kept; try a lower loop.optimizer.lr"
        message = f"{folder}: {reason} at step {step}: {found}; {hint}; samples: {folder / BAD_STEPS_NAME}"
        if self._config.on_trouble is OnTrouble.stop:
            raise InputError(message)
        self.num_skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row > self._config.max_skipped:
            raise InputError(f"{message}; {self._config.max_skipped} steps before it were skipped too")

    def forget_levels(self) -> None:
        """Where another phase of training begins, levels change by right."""
        for level in self._levels.values():
            level.clear()

    def state_dict(self) -> dict[str, Any]:
        return {
            "levels": {name: list(level) for name, level in self._levels.items()},
            "skipped_in_a_row": self._skipped_in_a_row,
            "num_skipped": self.num_skipped,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, level in self._levels.items():
            level.clear()
            level.extend(state["levels"][name])
        self._skipped_in_a_row, self.num_skipped = state["skipped_in_a_row"], state["num_skipped"]

    def _spike(self, name: str, value: float) -> str | None:
        level, factor = self._levels[name], self._config.spike_factor
        if factor == 0 or len(level) < MIN_LEVEL:
            return None
        usual = median(level)
        if usual <= 0 or value <= factor * usual:  # of a level of zero everything would be a multiple
            return None
        spoken = name.replace("_", " ")
        return f"{spoken} above {factor:g} times the median of {len(level)} steps, {usual:.4g},"


def _write_down(
    path: Path, step: int, reason: str, figures: Mapping[str, float], keys: Sequence[str]
) -> None:
    # JSON has no word for what is not finite.
    named = {key: value if math.isfinite(value) else str(value) for key, value in figures.items()}
    with open(path, "a", encoding="utf-8") as file:
        write_line(file, {"step": step, "reason": reason, **named, "keys": list(keys)})
