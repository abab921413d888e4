"""The training run, to be read top to bottom."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from coca_video.data.bad_samples import BadSamples
from coca_video.data.loader import BatchStream, DataConfig, training_batches
from coca_video.data.samples import Batch
from coca_video.data.transforms import Augmentation
from coca_video.ops.distributed import by_first, gather_objects, in_first, num_processes, rank
from coca_video.planning.devices import peak_flops
from coca_video.planning.flops import StepShape, flops_of_step
from coca_video.run_log import drop_steps_from, read_evaluations
from coca_video.training.checkpoints import Checkpoints
from coca_video.training.compute import ComputeConfig, autocast, prepare
from coca_video.training.figures import StepFigures, exchange
from coca_video.training.gradients import compute_gradients, compute_task_gradients
from coca_video.training.log import LogConfig, RunLog, SilentLog, open_log, step_figures, timed
from coca_video.training.optim import OptimizerConfig, last_rates
from coca_video.training.parallel import ParallelConfig
from coca_video.training.regimes import TuningConfig
from coca_video.training.seeds import seed_of
from coca_video.training.signals import Ending, stop_requested
from coca_video.training.state import TrainingState
from coca_video.training.step import Frames, Inputs, LossConfig
from coca_video.training.watch import BAD_STEPS_NAME, WatchConfig

# A saved checkpoint's folder -> figures by name. All processes call it; the first one's figures count.
Evaluation = Callable[[Path], dict[str, float]]
Log = RunLog | SilentLog


@dataclass
class LoopConfig:
    num_steps: int = 300
    num_epochs: int | None = None  # of every source, in place of num_steps; the last batch may be shorter
    num_samples: int | None = None  # in place of num_steps: so many steps as see them
    save_every: int = 100  # steps
    keep_last: int = 2  # checkpoints
    best: str | None = (
        None  # a figure of the evaluations: its best checkpoint is kept too; "-NAME": the lowest
    )
    save_in_background: bool = True  # a copy in memory is written while training goes on
    evaluate_every: int = 0  # steps; 0 = never
    ema_decay: float = 0.98  # of the averaged weights that checkpoints carry; 0 = the raw weights
    seed: int = 0
    tuning: TuningConfig = field(default_factory=TuningConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    log: LogConfig = field(default_factory=LogConfig)
    patch_dropout: float = 0.0  # share of each picture's patches that a step leaves out (FLIP): faster, worse
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name in ("num_steps", "save_every", "keep_last"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("num_epochs", "num_samples"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.num_epochs and self.num_samples:
            raise ValueError(
                f"num_epochs={self.num_epochs} and num_samples={self.num_samples} exclude each other"
            )
        if self.evaluate_every < 0:
            raise ValueError(f"evaluate_every must not be negative, got {self.evaluate_every}")
        for name in ("ema_decay", "patch_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")


def train(
    state: TrainingState,
    stream: BatchStream,
    config: LoopConfig,
    data: DataConfig,
    *,
    output: Path,
    evaluate: Evaluation | None = None,
) -> Ending:
    """Trains to the end of the stream, from the newest checkpoint in `output` if there is one.

    Step n depends on the state before it and on (seed, n) alone, so that a resumed run equals an unbroken
    one bit for bit. Ctrl-C, SIGTERM or SIGUSR1 end it after the current step, saved.
    In a distributed run all processes call, each with its share of the stream.
    """
    num_steps = len(stream)
    saving = {"keep_last": config.keep_last, "best": config.best, "asynchronous": config.save_in_background}
    with stop_requested() as stop, Checkpoints(output, **saving) as checkpoints:
        state.resume(checkpoints)
        prepare(state.model, config.compute)
        state.model.image_encoder.patch_dropout = config.patch_dropout
        first = state.step
        bad_samples = in_first(lambda: _open_bad_samples(stream, output, data, first=first))
        batches = training_batches(stream, first=first, num_workers=data.num_workers, timeout=data.timeout)
        with closing(_open_log(state, config, output, num_steps=num_steps)) as log:
            if evaluate and _lacks_evaluation(state.step, config, output):
                _evaluate(evaluate, state, checkpoints, log)
            for batch, waited in timed(batches):
                losses = _gradients(state, batch, config, size=stream.batch_size)
                norm = state.clip()
                flops = _flops(state, batch, config, rows=stream.batch_size)
                figures = exchange(losses, batch, flops=flops, waited_seconds=waited, wish=stop.wish)
                _note_bad_samples(bad_samples, state.step, batch, figures)

                shown = step_figures(figures.losses, gradient_norm=norm, rates=last_rates(state.optimizer))
                trouble = state.watch.judge(shown)
                if trouble:
                    state.watch.report(output, state.step, trouble, shown, _keys_of_all(batch))
                    log.skipped(state.step, trouble)
                else:
                    measured = {"num_samples": figures.num_samples, "waited_seconds": figures.waited_seconds}
                    log.step(state.step, shown, **measured, flops=figures.flops)

                state.advance(update=not trouble)
                checkpoints.check()
                is_last, evaluates = state.step == num_steps, evaluate and _is_evaluated(state.step, config)
                if state.step % config.save_every == 0 or is_last or evaluates or figures.wish:
                    state.save(checkpoints)
                if figures.wish:
                    break  # an evaluation that is due is made when the run goes on
                if evaluates:
                    _evaluate(evaluate, state, checkpoints, log)
    return Ending.finished if state.step == num_steps else figures.wish


def _open_log(state: TrainingState, config: LoopConfig, output: Path, *, num_steps: int) -> Log:
    return open_log(
        output,
        config.log,
        first_step=state.step,
        num_steps=num_steps,
        name=str(output),
        device=state.device,
        peak_flops=_peak_of_all(state.device),
    )


def _gradients(state: TrainingState, batch: Batch, config: LoopConfig, *, size: int) -> dict[str, Tensor]:
    """Of this process' share; `size`: samples of a whole batch, for which the augmentation is drawn."""
    number = config.seed * 1_000_003 + state.step
    torch.manual_seed(seed_of(number, rank()))  # dropout's, in each process another

    def prepare(frames: Tensor, rows: list[int]) -> Tensor:
        # Alike in all processes, as each takes what was drawn for its own rows.
        drawn = {"generator": torch.Generator().manual_seed(number), "rows": rows, "num_rows": size}
        frames = config.augmentation(frames, size=state.image_size, **drawn)
        return state.preprocessing.normalised(frames)

    batch = batch.to(state.device)
    frames = None  # a batch of tokens was encoded before
    if batch.tokens is None:
        frames = Frames(batch.frames, torch.tensor(batch.rows), prepare)
    compute = config.compute
    whose = state.parallel.call, state.model, Inputs.of(batch, frames)
    micro = {"micro_batch_size": compute.micro_batch_size}
    with autocast(compute, state.device):
        if state.task is not None:
            return compute_task_gradients(*whose, state.task, **micro)
        return compute_gradients(*whose, config.loss, accumulation=compute.accumulation, **micro)


def _flops(state: TrainingState, batch: Batch, config: LoopConfig, *, rows: int) -> float:
    """Of this process' share, as the model asks for it: what is computed twice counts once."""
    if batch.is_filler:
        return 0.0
    masks = batch.frame_mask, batch.text_mask
    # A task's head and loss are little; one without prompts reads pictures alone.
    reads_text = state.task is None or bool(batch.prompt_mask.sum(dim=1).max() > 1)
    sizes = {"image_size": state.image_size, "patch_dropout": config.patch_dropout, "num_pairs": rows}
    return flops_of_step(
        state.model.config,
        StepShape.of_masks(*masks, **sizes),
        trained=state.trained_groups,
        encoded=batch.tokens is not None or bool(state.task and state.task.blind),
        captioning=reads_text and config.loss.caption_weight > 0,
        contrastive=state.task is None and config.loss.contrastive_weight > 0,
    )


def _peak_of_all(device: torch.device) -> float | None:
    """FLOP/s of all processes' devices, where they are known."""
    peak = peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return peak and peak * num_processes()


def _open_bad_samples(stream: BatchStream, output: Path, data: DataConfig, *, first: int) -> BadSamples:
    drop_steps_from(output / BAD_STEPS_NAME, first)
    bad_samples = BadSamples(
        output,
        first_step=first,
        num_seen=stream.samples_before(first),
        num_samples=stream.samples_before(len(stream)),
        max_bad_share=data.max_bad_share,
    )
    bad_samples.note(stream.problems)
    return bad_samples


def _note_bad_samples(bad_samples: BadSamples | None, step: int, batch: Batch, figures: StepFigures) -> None:
    """All processes call; too many end the run in all of them."""
    if not figures.num_bad:
        if bad_samples:
            bad_samples.add(step, [], figures.num_seen)
        return
    of_all = gather_objects(batch.bad) or []
    bad = [one for of_one in of_all for one in of_one]
    by_first(lambda: bad_samples.add(step, bad, figures.num_seen))


def _keys_of_all(batch: Batch) -> list[str]:
    """Of the samples of all processes; all call, the first one learns them."""
    of_all = gather_objects([] if batch.is_filler else batch.keys) or []
    return [key for of_one in of_all for key in of_one]


def _is_evaluated(step: int, config: LoopConfig) -> bool:
    """Whether the checkpoint after so many steps shall be."""
    return bool(step and config.evaluate_every) and step % config.evaluate_every == 0


def _lacks_evaluation(step: int, config: LoopConfig, output: Path) -> bool:
    """Whether the run was stopped between the checkpoint that it goes on from and its evaluation."""
    if not _is_evaluated(step, config):
        return False
    return by_first(lambda: all(line["step"] != step - 1 for line in read_evaluations(output)))


def _evaluate(evaluate: Evaluation, state: TrainingState, checkpoints: Checkpoints, log: Log) -> None:
    """On the checkpoint just saved: what is evaluated is what a user would load."""
    checkpoints.wait()
    figures = evaluate(checkpoints.newest())
    checkpoints.record(state.step, figures)
    log.evaluation(state.step - 1, figures)
