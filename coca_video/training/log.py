"""Where a run's figures go: a JSON-lines file, TensorBoard, and the progress bar."""

import json
import time
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from coca_video.files import write_whole
from coca_video.run_log import LOG_NAME, read_log


class RunLog:
    """Writes `log.jsonl` (one line a step) and TensorBoard files into a run's folder."""

    def __init__(self, folder: Path, *, first_step: int, num_steps: int, name: str):
        folder.mkdir(parents=True, exist_ok=True)
        _drop_steps_from(folder / LOG_NAME, first_step)
        self._lines = open(folder / LOG_NAME, "a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)
        self._bar = tqdm(total=num_steps, initial=first_step, desc=name, unit="step", dynamic_ncols=True)
        self._last = time.perf_counter()

    def step(self, step: int, figures: dict[str, float], *, num_samples: int) -> None:
        """Figures of one finished step; samples/s is since the step before."""
        now = time.perf_counter()
        figures = {**figures, "samples_per_second": num_samples / (now - self._last)}
        self._last = now
        self._lines.write(json.dumps({"step": step, **figures}) + "\n")
        self._lines.flush()
        for key, value in figures.items():
            self._board.add_scalar(key, value, step)
        self._bar.set_postfix_str(
            f"loss {figures['loss']:.3f}, {figures['samples_per_second']:.0f} samples/s", refresh=False
        )
        self._bar.update()

    def close(self) -> None:
        self._lines.close()
        self._board.close()
        self._bar.close()


def _drop_steps_from(path: Path, first_step: int) -> None:
    """What was logged after the checkpoint that a run resumes from happens again: forget it."""
    if path.exists():
        kept = [line for line in read_log(path.parent) if line["step"] < first_step]
        write_whole(path, "".join(json.dumps(line) + "\n" for line in kept))
