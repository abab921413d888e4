"""Everything that changes during training, saved and resumed as one."""

import shutil
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from coca_video.checkpoint import load_state, save_checkpoint, saved_checkpoints
from coca_video.data.tokenizer import Tokenizer
from coca_video.data.transforms import Preprocessing
from coca_video.models.coca import CoCa
from coca_video.training.optim import OptimizerConfig, build_optimizer, build_schedule
from coca_video.training.regimes import Phase, freeze_all_but


class TrainingState:
    """The model, its average, optimizer, schedule and step; and what a checkpoint needs beside them.

    phases: in order; each begins with a new optimizer and schedule.
    trained_on: the data sets seen by these weights, this run's included.
    """

    def __init__(
        self,
        model: CoCa,
        tokenizer: Tokenizer,
        preprocessing: Preprocessing,
        *,
        optimizer: OptimizerConfig,
        phases: list[Phase],
        ema_decay: float,
        trained_on: list[str],
        device: torch.device,
    ):
        self.model = model.to(device)
        self.averaged = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(ema_decay))
        self.phases, self.optimizer_config = phases, optimizer
        self.tokenizer, self.preprocessing = tokenizer, preprocessing
        self.trained_on, self.device = trained_on, device
        self.step = 0
        self._begin_phase(phases[0])

    @property
    def image_size(self) -> int:
        return self.model.config.image.image_size

    def advance(self) -> None:
        """Closes a step: schedule, average, count; the next phase if it was the last of one."""
        self.schedule.step()
        self.averaged.update_parameters(self.model)
        self.step += 1
        for phase in self.phases:
            if phase.first == self.step:
                self._begin_phase(phase)

    def save(self, output: Path, *, keep_last: int) -> None:
        """A checkpoint whose weights are the average; older ones than the last `keep_last` are removed."""
        save_checkpoint(
            output / "checkpoints" / f"step-{self.step:07d}",
            config=self.model.config,
            weights=self.averaged.module.state_dict(),
            tokenizer=self.tokenizer,
            preprocessing=self.preprocessing,
            trained_on=self.trained_on,
            state={"step": self.step, **{name: part.state_dict() for name, part in self._parts.items()}},
        )
        for old in saved_checkpoints(output)[:-keep_last]:
            shutil.rmtree(old)

    def resume(self, output: Path) -> None:
        """Takes up the newest checkpoint of the run in `output`; does nothing where there is none."""
        saved = saved_checkpoints(output)
        if not saved:
            return
        state = load_state(saved[-1])
        self.step = state["step"]
        self._begin_phase([phase for phase in self.phases if phase.first <= self.step][-1])
        for name, part in self._parts.items():
            part.load_state_dict(state[name])

    def _begin_phase(self, phase: Phase) -> None:
        freeze_all_but(self.model, phase.trained)
        self.optimizer = build_optimizer(self.model, self.optimizer_config)
        self.schedule = build_schedule(self.optimizer, self.optimizer_config, num_steps=phase.num_steps)

    @property
    def _parts(self) -> dict:
        return {
            "model": self.model,
            "averaged": self.averaged,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
        }
