"""Training runs of a tiny model, as a new process would make them, and what they leave behind."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import torch
from datasets import mixed_arguments
from torch import Tensor

from coca_video.checkpoint import load_checkpoint, saved_checkpoints
from coca_video.cli import load_config
from coca_video.config import TrainConfig
from coca_video.data.loader import BatchStream
from coca_video.data.sources import open_source
from coca_video.data.tokenizer import Tokenizer
from coca_video.models.coca import CoCa
from coca_video.ops.distributed import num_processes, rank
from coca_video.run_log import read_log
from coca_video.training.log import MEASURED
from coca_video.training.loop import Evaluation, train
from coca_video.training.regimes import plan_phases, reached_parameters
from coca_video.training.signals import Ending
from coca_video.training.state import TrainingState
from coca_video.training.state_folder import load_state

AUGMENTATION = "loop.augmentation={degrees: 10, min_scale: 0.8, max_scale: 1.2, shift: 0.1, color: 0.3}"


class Interrupted(BatchStream):
    """The signal arrives while batch `at` is made: `times` times."""

    at, times, number = 2, 1, signal.SIGINT

    def __getitem__(self, step: int):
        if step == self.at:
            for _ in range(self.times):
                signal.raise_signal(self.number)
        return super().__getitem__(step)


class Recorded(BatchStream):
    """Each batch that is asked for is a line of `record`: its number, and the keys of its samples."""

    record: Path

    def __getitem__(self, step: int):
        batch = super().__getitem__(step)
        with open(self.record, "a") as file:
            file.write(json.dumps([step, batch.keys]) + "\n")
        return batch


def run(
    root: Path,
    output: Path,
    *changes: str,
    stream: type[BatchStream] = BatchStream,
    num_workers: int = 0,
    evaluate: Evaluation | None = None,
) -> tuple[TrainingState, Ending]:
    """Trains from scratch or from what is in `output`, as a new process, or one of several, would."""
    config = load_config(TrainConfig, "train", [*mixed_arguments(root, output), AUGMENTATION, *changes])
    data, loop = replace(config.data, num_workers=num_workers), config.loop
    sources = [open_source(s, frame_size=20, preprocessing=data.preprocessing) for s in data.sources]
    tokenizer = Tokenizer.train([text for source in sources for text in source.texts()], vocab_size=300)
    config.model.text.vocab_size = tokenizer.vocab_size
    torch.manual_seed(loop.seed)
    reached = reached_parameters(config.model, loop.loss)
    state = TrainingState(
        CoCa(config.model),
        tokenizer,
        data.preprocessing,
        optimizer=loop.optimizer,
        phases=plan_phases(config.model, loop.tuning, num_steps=loop.num_steps, reached=reached),
        ema_decay=loop.ema_decay,
        trained_on=["here"],
        device=torch.device("cpu"),
        watch=loop.watch,
        parallel=loop.parallel,
    )
    length, own = loop.num_steps, {"seed": loop.seed, "rank": rank(), "num_ranks": num_processes()}
    batches = stream(sources, data.sources, tokenizer, max_length=16, num_batches=length, **own)
    return state, train(state, batches, loop, data, output=output, evaluate=evaluate)


def checkpoint(output: Path, step: int) -> Path:
    return output / "checkpoints" / f"step-{step:07d}"


def assert_same(ours: object, theirs: object) -> None:
    """Equal to the last bit, whatever the nesting."""
    assert type(ours) is type(theirs)
    if isinstance(ours, Tensor):
        assert torch.equal(ours, theirs)
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        assert_same(list(ours.values()), list(theirs.values()))
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs):
            assert_same(mine, other)
    else:
        assert ours == theirs


def figures(output: Path) -> list[dict[str, float]]:
    """The log without what differs between equal runs: how fast it went."""
    lines = read_log(output)
    for line in lines:
        assert line["samples_per_second"] > 0
    return [{name: value for name, value in line.items() if name not in MEASURED} for line in lines]


def assert_same_runs(ours: Path, theirs: Path) -> None:
    assert figures(ours) == figures(theirs)
    last = [saved_checkpoints(output)[-1] for output in (ours, theirs)]
    assert last[0].name == last[1].name
    assert_same(*map(load_state, last))
    assert load_checkpoint(ours).hash == load_checkpoint(theirs).hash
