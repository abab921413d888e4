"""Training over shards: how long a step waits for its batch, and whether the loader's memory stays flat."""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from coca_video.benchmarks.measure import check_memory_is_told, resident_by_process
from coca_video.benchmarks.pictures import write_pictures
from coca_video.benchmarks.report import MB, Result
from coca_video.cli import load_option
from coca_video.data.loader import BatchStream, DataConfig, training_batches
from coca_video.data.sources import Kind, Source, SourceConfig, open_source
from coca_video.data.tokenizer import Tokenizer
from coca_video.errors import InputError
from coca_video.models.coca import CoCa, CoCaConfig
from coca_video.run_log import read_log
from coca_video.training.loop import LoopConfig, train
from coca_video.training.regimes import plan_phases, reached_parameters
from coca_video.training.state import TrainingState

FIRST_STEPS = 5  # of training, in which the workers begin; they do not count
NUM_POINTS = 200  # at which memory is read
AIM = 0.05  # of a step's time: more waiting is too much


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="tiny", help="a preset of configs/model; default: %(default)s")
    parser.add_argument(
        "--samples", type=int, default=100_000, help="pictures with texts; default: %(default)s"
    )
    parser.add_argument("--batch-size", type=int, default=128, help="default: %(default)s")
    steps_help = "of training, and batches of the loader alone, that are timed; default: %(default)s"
    parser.add_argument("--steps", type=int, default=40, help=steps_help)
    batches_help = "over which memory is watched; default: what the model trains in an hour"
    parser.add_argument("--batches", type=int, help=batches_help)
    workers_help = "how many; training and memory are measured with the first; default: %(default)s"
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help=workers_help)
    parser.add_argument(
        "--folder", type=Path, help="where the shards stay, or are from an earlier time; default: temporary"
    )


def run(args: argparse.Namespace, device: torch.device) -> Result:
    _check(args)
    config = load_option(CoCaConfig, "model", args.model)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        shards = args.folder or work / "shards"
        _have_shards(shards, num_samples=args.samples, size=config.image.image_size)
        with _indices_in(work / "indices"):
            loading = Loading.prepare(config, shards, args)
            waiting = loading.train(work / "run", num_workers=args.workers[0], device=device)
            rates = loading.rates(args.workers, repeats=args.repeats)
            num_batches = args.batches or round(3600 * waiting.steps_per_second)
            memory = loading.memory(num_batches, num_workers=args.workers[0])
    return _result(args, loading, waiting, rates, memory)


def _check(args: argparse.Namespace) -> None:
    check_memory_is_told()
    if args.batches == 1:
        raise InputError("--batches 1: at least two are needed, as memory may grow from one to the next")


@dataclass
class Waiting:
    """Of a training run's steps, all but the first few."""

    share: float  # of their time
    steps_per_second: float


@dataclass
class Memory:
    """Bytes in use, this process first, then each worker, after so many batches."""

    batches: list[int]
    in_use: list[list[int]]

    def rows(self) -> list[list[str]]:
        names = ["this process", *(f"worker {i}" for i in range(1, len(self.in_use[0])))]
        return [[name, *self._cells(which)] for which, name in enumerate(names)]

    def slope(self, which: int) -> float:
        """MB that a process grows over 1,000 batches, by least squares."""
        values = [point[which] / MB for point in self.in_use]
        slope = 1000 * np.polyfit(self.batches, values, deg=1)[0].item()
        return round(slope, 3) + 0.0  # no -0.0

    @property
    def slope_of_all(self) -> float:
        return sum(self.slope(which) for which in range(len(self.in_use[0])))

    def _cells(self, which: int) -> list[str]:
        values = [point[which] / MB for point in self.in_use]
        cells = [f"{value:.1f} MB" for value in (values[0], values[-1], max(values))]
        return [*cells, f"{self.slope(which):+.2f} MB"]


@dataclass
class Loading:
    """A model and the shards that it is to be trained on."""

    model: CoCaConfig
    source: Source
    config: SourceConfig
    tokenizer: Tokenizer
    steps: int
    index_seconds: list[float]  # of the first start, which makes the shards' indices, and of the second

    @classmethod
    def prepare(cls, model: CoCaConfig, shards: Path, args: argparse.Namespace) -> "Loading":
        config = SourceConfig(Kind.pictures, str(shards), batch_size=args.batch_size)
        data = DataConfig([config], frame_size=model.image.image_size)
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            source = open_source(config, frame_size=data.frame_size, preprocessing=data.preprocessing)
            seconds.append(time.perf_counter() - start)
        if len(source) != args.samples:
            raise InputError(f"{shards}: holds {len(source)} samples, not {args.samples} (--samples)")
        tokenizer = Tokenizer.train(source.texts(), vocab_size=model.text.vocab_size)
        text = replace(model.text, vocab_size=tokenizer.vocab_size)
        return cls(replace(model, text=text), source, config, tokenizer, args.steps, seconds)

    def stream(self, num_batches: int) -> BatchStream:
        settings = {"max_length": self.model.text.context_length, "num_batches": num_batches, "seed": 0}
        return BatchStream([self.source], [self.config], self.tokenizer, **settings)

    def train(self, output: Path, *, num_workers: int, device: torch.device) -> Waiting:
        """As `tools/train.py` does it, with the defaults of its settings."""
        num_steps = FIRST_STEPS + self.steps
        loop = LoopConfig(num_steps=num_steps, save_every=num_steps)
        data = DataConfig([self.config], frame_size=self.source.frame_size, num_workers=num_workers)
        reached = reached_parameters(self.model, loop.loss)
        torch.manual_seed(loop.seed)
        state = TrainingState(
            CoCa(self.model),
            self.tokenizer,
            data.preprocessing,
            optimizer=loop.optimizer,
            phases=plan_phases(self.model, loop.tuning, num_steps=num_steps, reached=reached),
            ema_decay=loop.ema_decay,
            trained_on=[],
            device=device,
        )
        train(state, self.stream(num_steps), loop, data, output=output)
        return waiting_of(read_log(output)[FIRST_STEPS:], batch_size=self.config.batch_size)

    def rates(self, workers: list[int], *, repeats: int) -> dict[int, float]:
        """Samples a second without a model, by the number of workers; they take turns."""
        found: dict[int, list[float]] = {num: [] for num in workers}
        for _ in tqdm(range(repeats), desc="rates", unit="turn"):
            for num_workers, rates in found.items():
                rates.append(self._rate(num_workers))
        return {num: statistics.median(rates) for num, rates in found.items()}

    def _rate(self, num_workers: int) -> float:
        num_first = 2 * num_workers  # each has begun, and none is ahead as the clock starts
        stream = self.stream(num_first + self.steps)
        with closing(training_batches(stream, first=0, num_workers=num_workers)) as batches:
            for _ in range(num_first):
                next(batches)
            start = time.perf_counter()
            num_samples = sum(len(batch) for batch in batches)
            return num_samples / (time.perf_counter() - start)

    def memory(self, num_batches: int, *, num_workers: int) -> Memory:
        """Without a model. The first fifth of the batches, in which shards are opened, does not count."""
        first, every = num_batches // 5, max(1, num_batches // NUM_POINTS)
        memory = Memory([], [])
        batches = training_batches(self.stream(num_batches), first=0, num_workers=num_workers)
        with closing(batches):
            for i, _ in enumerate(tqdm(batches, desc="memory", unit="batch", total=num_batches)):
                if i >= first and (i - first) % every == 0:
                    memory.batches.append(i)
                    memory.in_use.append(resident_by_process())
        return memory


def waiting_of(log: list[dict[str, float]], *, batch_size: int) -> Waiting:
    """log: a line a step."""
    seconds = [batch_size / line["samples_per_second"] for line in log]
    waited = sum(line["data_wait"] * each for line, each in zip(log, seconds))
    return Waiting(waited / sum(seconds), len(log) / sum(seconds))


def _have_shards(folder: Path, *, num_samples: int, size: int) -> None:
    if not any(folder.glob("*.tar")):
        write_pictures(folder, num_samples=num_samples, size=size)


@contextmanager
def _indices_in(folder: Path) -> Iterator[None]:
    """The shards' indices are made anew, and nothing stays of them."""
    before = os.environ.get("COCA_VIDEO_CACHE")
    os.environ["COCA_VIDEO_CACHE"] = str(folder)
    try:
        yield
    finally:
        del os.environ["COCA_VIDEO_CACHE"]
        if before is not None:
            os.environ["COCA_VIDEO_CACHE"] = before


def _result(
    args: argparse.Namespace, loading: Loading, waiting: Waiting, rates: dict[int, float], memory: Memory
) -> Result:
    last_batch, num_points = memory.batches[-1], len(memory.batches)
    trained = (
        f"{waiting.steps_per_second * args.batch_size:.0f} samples/s, {waiting.steps_per_second:.2f} steps/s"
    )
    first_start, second_start = loading.index_seconds
    rows = [["memory of the loader alone", "first", "last", "largest", "over 1,000 batches"]]
    return Result(
        subject=f"{args.model}, {args.samples:,} pictures in {len(loading.source.sizes)} shards, batches of "
        f"{args.batch_size}, {args.workers[0]} worker(s)",
        rows=rows + memory.rows(),
        figures={
            "data_wait": waiting.share,
            "steps_per_second": waiting.steps_per_second,
            "loader_samples_per_second": rates,
            "index_seconds": {"first start": first_start, "second start": second_start},
            "memory": {"batches": memory.batches, "bytes": memory.in_use},
            "memory_mb_per_1000_batches": memory.slope_of_all,
        },
        notes=[
            f"memory read {num_points} times, after {memory.batches[0]:,} to {last_batch:,} batches",
            f"training: {trained}, over {args.steps} steps",
            "the loader alone: "
            + ", ".join(f"{num} worker(s) {rate:.0f} samples/s" for num, rate in rates.items()),
            f"start: indices made in {first_start:.2f} s, read again in {second_start:.2f} s",
        ],
        last=f"waiting for data: {waiting.share:.2%} of a step (aim: below {AIM:.0%}); "
        f"memory: {memory.slope_of_all:+.2f} MB over 1,000 batches",
    )
