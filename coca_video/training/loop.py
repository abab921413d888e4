"""The training run, to be read top to bottom."""

import math
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from coca_video.data.loader import BatchStream, training_batches
from coca_video.data.transforms import Augmentation
from coca_video.errors import InputError
from coca_video.training.compute import ComputeConfig, autocast, prepare
from coca_video.training.log import RunLog
from coca_video.training.optim import OptimizerConfig
from coca_video.training.regimes import TuningConfig
from coca_video.training.state import TrainingState
from coca_video.training.step import LossConfig, compute_losses, update


@dataclass
class LoopConfig:
    num_steps: int = 300
    save_every: int = 100  # steps
    keep_last: int = 2  # checkpoints
    ema_decay: float = 0.98  # of the averaged weights that checkpoints carry; 0 = the raw weights
    seed: int = 0
    tuning: TuningConfig = field(default_factory=TuningConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    patch_dropout: float = 0.0  # share of each picture's patches that a step leaves out (FLIP): faster, worse
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name in ("num_steps", "save_every", "keep_last"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("ema_decay", "patch_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")


def train(
    state: TrainingState, stream: BatchStream, config: LoopConfig, *, output: Path, num_workers: int
) -> bool:
    """Trains to config.num_steps, from the newest checkpoint in `output` if there is one.

    Step n depends on the state before it and on (seed, n) alone, so that a resumed run equals an unbroken
    one bit for bit. Ctrl-C or SIGTERM ends it after the current step, saved. Returns whether it finished.
    The log's lr is the largest of the groups'.
    """
    state.resume(output)
    prepare(state.model, config.compute)
    state.model.image_encoder.patch_dropout = config.patch_dropout
    log = RunLog(output, first_step=state.step, num_steps=config.num_steps, name=str(output))
    batches = training_batches(stream, first=state.step, num_workers=num_workers)
    with closing(log), _stop_requested() as stop:
        for batch in batches:
            generator = _seed_step(config.seed, state.step)
            batch = batch.to(state.device)
            frames = None  # a batch of tokens was encoded before
            if batch.tokens is None:
                frames = config.augmentation(batch.frames, size=state.image_size, generator=generator)
                frames = state.preprocessing.normalised(frames)

            micro_batch_size = config.compute.micro_batch_size
            with autocast(config.compute, state.device):
                losses = compute_losses(
                    state.model, frames, batch, config.loss, micro_batch_size=micro_batch_size
                )
            norm = update(state.model, losses["loss"], state.optimizer, clip_norm=config.optimizer.clip_norm)
            figures = {name: value.item() for name, value in losses.items()}
            figures |= {"gradient_norm": norm.item(), "lr": max(state.schedule.get_last_lr())}
            _check_finite(figures, state.step, output)
            log.step(state.step, figures, num_samples=len(batch))

            state.advance()
            stops = bool(stop)  # read once: a signal that comes now waits for the next step
            if state.step % config.save_every == 0 or state.step == config.num_steps or stops:
                state.save(output, keep_last=config.keep_last)
            if stops:
                break
    return state.step == config.num_steps


def _check_finite(figures: dict[str, float], step: int, output: Path) -> None:
    """A diverged run ends before its weights replace the last good checkpoint."""
    if not math.isfinite(figures["loss"] + figures["gradient_norm"]):
        found = f"loss {figures['loss']}, gradient norm {figures['gradient_norm']}"
        hint = "the last checkpoint is kept; try a lower loop.optimizer.lr"
        raise InputError(f"{output}: not finite at step {step}: {found}; {hint}")


def _seed_step(seed: int, step: int) -> torch.Generator:
    """Seeds dropout (the global generator) and gives the augmentation one of its own."""
    number = seed * 1_000_003 + step
    torch.manual_seed(number)
    return torch.Generator().manual_seed(number)


class _Stop:
    """Becomes true once a signal arrives."""

    def __init__(self) -> None:
        self.requested = False

    def __bool__(self) -> bool:
        return self.requested


@contextmanager
def _stop_requested() -> Iterator[_Stop]:
    """The first Ctrl-C or SIGTERM asks the loop to save and stop; a second one interrupts at once."""
    stop = _Stop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, frame: object) -> None:
        stop.requested = True
        for known, handler in before.items():
            signal.signal(known, handler)

    for number in before:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
