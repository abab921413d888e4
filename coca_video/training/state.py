"""Everything that changes during training, saved and resumed as one."""

import torch
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from coca_video.checkpoint import About, step_of
from coca_video.data.tokenizer import Tokenizer
from coca_video.data.transforms import Preprocessing
from coca_video.models.coca import CoCa
from coca_video.tasks.task import Task
from coca_video.training.anchor import Anchor
from coca_video.training.average import Average
from coca_video.training.checkpoints import Checkpoints
from coca_video.training.compute import Precision
from coca_video.training.gradients import clip_gradients
from coca_video.training.optim import OptimizerConfig, build_optimizer, build_schedule
from coca_video.training.parallel import ParallelConfig, ParallelModel
from coca_video.training.regimes import Phase, freeze_all_but
from coca_video.training.watch import Watch, WatchConfig


class TrainingState:
    """The model, its average, optimizer, schedule, watch and step; and what a checkpoint needs beside them.

    phases: in order; each begins with a new optimizer and schedule.
    trained_on: the data sets seen by these weights, this run's included.
    task: what is learned in place of CoCa's own losses; the model has its head.
    In a distributed run all processes make one, of equal models, and do the same to it.
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
        watch: WatchConfig | None = None,
        parallel: ParallelConfig | None = None,
        precision: Precision = Precision.float32,
        task: Task | None = None,
    ):
        self.model, self.device = model.to(device), device
        self.phases, self.optimizer_config = phases, optimizer
        self.task = task
        self.about = About(model.config, tokenizer, preprocessing, trained_on, task and task.describe())
        self.parallel = ParallelModel(self.model, parallel or ParallelConfig(), precision=precision)
        trained = frozenset().union(*(phase.trained for phase in phases))
        self.average = Average(self.model, ema_decay, trained=trained)
        self.anchor = Anchor(self.model, optimizer, trained=trained)
        self.watch = Watch(watch or WatchConfig())
        self.step = 0
        self._begin_phase(phases[0])

    @property
    def image_size(self) -> int:
        return self.model.config.image.image_size

    @property
    def preprocessing(self) -> Preprocessing:
        return self.about.preprocessing

    @property
    def trained_groups(self) -> frozenset[str]:
        """Parts of the model that this phase trains."""
        return frozenset(name.partition(".")[0] for name in self._phase.trained)

    def clip(self) -> float:
        """After the backward pass: clips the whole gradient, and returns its norm before."""
        self.parallel.finish_gradients()
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return clip_gradients(trained, self.optimizer_config.clip_norm).item()

    def advance(self, *, update: bool = True) -> None:
        """Closes a step: weights, schedule, average, count; the next phase if it was the last of one.

        update: False leaves the weights as they are.
        """
        if update:
            self.optimizer.step()
            self.anchor.pull(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        self.average.update(self.model)
        self.step += 1
        for phase in self.phases:
            if phase.first == self.step:
                self._begin_phase(phase)

    def save(self, checkpoints: Checkpoints) -> None:
        """A checkpoint whose weights are the average."""
        weights = self.average.state_dict()
        checkpoints.save(self.step, state=self._state(), weights=weights, about=self.about)

    def resume(self, checkpoints: Checkpoints) -> None:
        """Takes up the newest checkpoint of the run; does nothing where there is none."""
        newest = checkpoints.newest()
        if newest is None:
            return
        self.step = step = step_of(newest)
        self._begin_phase([phase for phase in self.phases if phase.first <= step][-1])
        state = self._state()
        checkpoints.resume(state)
        model_state, optimizer_state = state["model"], state["optimizer"]
        set_state_dict(
            self.model, self.optimizer, model_state_dict=model_state, optim_state_dict=optimizer_state
        )
        self.average.load_state_dict(state["average"], num_updates=step)
        self.anchor.load_state_dict(state.get("anchor", {}))
        self.watch.load_state_dict(state["watch"])
        self._begin_schedule()

    def _state(self) -> dict:
        """Nothing of the data: batch n, and what is random about step n, depend on the seed and n alone."""
        model, optimizer = get_state_dict(self.model, self.optimizer)
        watch = self.watch.state_dict()
        state = {"model": model, "optimizer": optimizer, "average": self.average.state_dict(), "watch": watch}
        if anchor := self.anchor.state_dict():
            state["anchor"] = anchor
        return state

    def _begin_phase(self, phase: Phase) -> None:
        self._phase = phase
        freeze_all_but(self.model, phase.trained)
        self.parallel.begin_phase()
        self.watch.forget_levels()
        self.optimizer = build_optimizer(self.model, self.optimizer_config)
        self._begin_schedule()

    def _begin_schedule(self) -> None:
        phase, config = self._phase, self.optimizer_config
        within = self.step - phase.first
        self.schedule = build_schedule(self.optimizer, config, num_steps=phase.num_steps, step=within)
