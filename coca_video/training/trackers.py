"""Where a run's figures are drawn as curves: TensorBoard, Weights & Biases."""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from torch.utils.tensorboard import SummaryWriter

from coca_video.errors import InputError
from coca_video.files import write_whole

RUN_ID_NAME = "wandb_id"  # the file, in a run's folder, by which a resumed run is the same one there


class WandbMode(str, Enum):
    online = "online"
    offline = "offline"  # kept in the run's folder, to be sent later by `wandb sync`


class Tracker(Protocol):
    def write(self, step: int, figures: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in the run's folder; those of steps from `first_step` on are forgotten."""

    def __init__(self, folder: Path, *, first_step: int):
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        for key, value in figures.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A run of Weights & Biases, the same one each time the run in `folder` is taken up again.

    mode: None = what the variable WANDB_MODE says, online without it. settings: shown as the run's config.
    Raises InputError if the package is missing or refuses to begin.
    """

    def __init__(
        self, folder: Path, *, project: str, mode: WandbMode | None, name: str, settings: dict | None = None
    ):
        try:
            from wandb import Error, Settings, init  # by name: a folder called wandb may be imported as well
        except ImportError as error:
            hint = "pip install coca-video[wandb]"
            raise InputError(
                f"wandb_project={project} needs a package that is not installed; {hint}"
            ) from error
        try:
            self._run = init(
                project=project,
                mode=mode and mode.value,
                id=_run_id(folder),
                resume="allow",
                name=name,
                dir=str(folder),
                config=settings,
                allow_val_change=True,  # what changes no result may change at a resume
                settings=Settings(console="off", silent=True),  # the bar is not a figure
            )
        except Error as error:
            hint = "loop.log.wandb_mode=offline keeps the figures here"
            found = f"loop.log.wandb_project={project}: {_one_line(error)}"
            raise InputError(f"{found}; {hint}") from error
        # Steps that happen again after a crash would be refused as steps of wandb's own count.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log({"step": step, **figures})

    def close(self) -> None:
        self._run.finish()


def _run_id(folder: Path) -> str:
    path = folder / RUN_ID_NAME
    if not path.exists():
        write_whole(path, uuid4().hex[:12] + "\n")
    return path.read_text(encoding="utf-8").strip()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
