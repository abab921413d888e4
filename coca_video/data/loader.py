"""From sources on disk to a stream of training batches whose n-th batch depends on (seed, n) alone.

Of several processes each has its share of every batch, and all shares together are the batch of one process:
a run may go on with another number of them, and neither loses nor repeats a sample.
"""

import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial

from torch.utils.data import Dataset

from coca_video.data.bad_samples import BadSample, Unreadable
from coca_video.data.mixing import Alternating, Mixing, Together, shares
from coca_video.data.order import Order
from coca_video.data.samples import Batch, Sample, collate
from coca_video.data.sources import (
    Bucket,
    Source,
    SourceConfig,
    shuffle_window,
)
from coca_video.data.tokenizer import Tokenizer
from coca_video.data.transforms import Preprocessing
from coca_video.data.workers import Failure, run_killable
from coca_video.errors import InputError

ROWS_A_TIMEOUT = 64  # samples of a share


@dataclass
class DataConfig:
    sources: list[SourceConfig]
    frame_size: int = 64  # pixels at which frames wait for augmentation
    num_workers: int = 1  # that read, for each process that trains; 0: the training process reads
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    reduced_decoding: bool = False  # see Clips
    token_cache: str | None = None  # a folder: a frozen image encoder encodes each frame once for all runs
    mixing: Mixing = Mixing.together
    max_bad_share: float = 0.01  # of the samples: with more that cannot be read, the run ends
    timeout: float = 60.0  # seconds to read one sample; and each 64 of a share, before they are read singly

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("sources must name at least one source, got none")
        if self.frame_size < 1:
            raise ValueError(f"frame_size must be positive, got {self.frame_size}")
        if self.num_workers < 0:
            raise ValueError(f"num_workers must not be negative, got {self.num_workers}")
        if not 0 <= self.max_bad_share <= 1:
            raise ValueError(f"max_bad_share must be in [0, 1], got {self.max_bad_share}")
        if not self.timeout > 0:
            raise ValueError(f"timeout must be more than 0 seconds, got {self.timeout}")
        if self.mixing is Mixing.together and any(source.weight != 1 for source in self.sources):
            weights = ", ".join(f"{source.weight:g}" for source in self.sources)
            raise ValueError(f"the sources' weights {weights} need mixing=alternating, got mixing=together")

    @property
    def mean_batch_size(self) -> float:
        """Samples of a batch of all processes, over many of them."""
        sizes = [source.batch_size for source in self.sources]
        if self.mixing is Mixing.together:
            return sum(sizes)
        weights = [source.weight for source in self.sources]
        return sum(size * weight for size, weight in zip(sizes, weights)) / sum(weights)


@dataclass(frozen=True)
class Row:
    """A place in a batch, and what is to be read there."""

    number: int  # within the batch of all processes
    source: int
    index: int  # within the source


class BatchStream(Dataset[Batch]):
    """Item n is a process' share of batch n, a pure function of (seed, n): a resumed run reads on where it
    stopped.

    Together, every batch holds samples of each source, as many as its batch_size says: pictures beside
    clips, so that neither the batch's statistics nor its negatives tell them apart. Alternating, it is of one
    source.
    Each source is shuffled anew every epoch of its own and read without repetition, see `order.Order`.

    A sample that cannot be read is left out, and in the batch's list of these. A share without any sample is
    a filler, so that all processes have something to compute.

    num_batches: the most, None without a limit.
    num_epochs: each source is read so many times, then it ends; batches at its end are shorter. None: without
        end.
    Raises InputError where every batch would hold a sample twice, or be smaller than the number of processes.
    """

    def __init__(
        self,
        sources: list[Source],
        configs: list[SourceConfig],
        tokenizer: Tokenizer,
        *,
        max_length: int,
        num_batches: int | None,
        seed: int,
        mixing: Mixing = Mixing.together,
        num_epochs: int | None = None,
        rank: int = 0,
        num_ranks: int = 1,
    ):
        if num_batches is None and num_epochs is None:
            raise ValueError("a stream needs num_batches or num_epochs")
        for source, config in zip(sources, configs):
            _check_size(source, config, is_finite=num_epochs is not None)
        self.sources, self.tokenizer, self.max_length, self.seed = sources, tokenizer, max_length, seed
        self.rank, self.num_ranks = rank, num_ranks
        self.batch_size = _batch_size(configs, mixing, num_ranks)
        self._orders = [
            _order(source, config, seed=f"{seed} order {which}")
            for which, (source, config) in enumerate(zip(sources, configs))
        ]
        limits = None if num_epochs is None else [num_epochs * len(source) for source in sources]
        self._plan = _plan(configs, mixing, limits)
        most = [num for num in (num_batches, self._plan.num_batches) if num is not None]
        self.num_batches = min(most)

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, number: int) -> Batch:
        rows = self.rows(number)
        return self.collate(rows, [self.read(number, row) for row in rows])

    @property
    def problems(self) -> list[BadSample]:
        """Shards that are cut short: what is lost of the sources as a whole."""
        return [problem for source in self.sources for problem in source.problems]

    def samples_before(self, number: int) -> int:
        """How many samples the batches before this one have, all processes' and bad ones included."""
        return sum(self.counts_before(number))

    def counts_before(self, number: int) -> list[int]:
        """Of them, those of each source."""
        return self._plan.counts_before(number)

    def rows(self, number: int) -> list[Row]:
        """What this process' share of a batch is made of."""
        positions = self._plan.positions(number)
        counts = [len(each) for each in positions]
        own = shares(counts, rank=self.rank, num_ranks=self.num_ranks, turn=number)
        return [
            Row(sum(counts[:which]) + i, which, self._orders[which].index(positions[which][i]))
            for which, share in enumerate(own)
            for i in share
        ]

    def read(self, number: int, row: Row) -> Sample | BadSample:
        """A sample of batch `number`. It has a random generator of its own, whoever reads it."""
        rng = random.Random(f"{self.seed} sample {number} {row.number}")
        try:
            return self.sources[row.source].sample(row.index, rng)
        except Unreadable as error:
            return self.bad_sample(row, error.kind, str(error))

    def bad_sample(self, row: Row, kind: str, reason: str) -> BadSample:
        source = self.sources[row.source]
        return BadSample(source.path, source.key(row.index), kind, reason)

    def collate(self, rows: list[Row], found: list[Sample | BadSample]) -> Batch:
        bad = [each for each in found if isinstance(each, BadSample)]
        pairs = [(row.number, each) for row, each in zip(rows, found) if isinstance(each, Sample)]
        numbers, samples = zip(*(pairs or [(0, self.sources[0].filler())]))
        batch = collate(list(samples), self.tokenizer, max_length=self.max_length)
        return replace(batch, rows=list(numbers), bad=bad, is_filler=not pairs)


def _check_size(source: Source, config: SourceConfig, *, is_finite: bool) -> None:
    if not len(source):
        raise InputError(f"{config.path}: holds no sample; it needs at least one")
    if config.batch_size > len(source) and not (is_finite or config.resample):
        hint = "take a smaller one, loop.num_epochs=N, or resample=true for the source"
        found = f"batch_size {config.batch_size} exceeds its {len(source)} samples"
        raise InputError(f"{config.path}: {found}; {hint}")


def _batch_size(configs: list[SourceConfig], mixing: Mixing, num_ranks: int) -> int:
    """Of a batch of all processes; of the largest, where they alternate."""
    sizes = [config.batch_size for config in configs]
    if mixing is Mixing.together:
        sizes = [sum(sizes)]
    if min(sizes) < num_ranks:
        parts = " + ".join(str(config.batch_size) for config in configs)
        found = f"{parts} = {sizes[0]}" if mixing is Mixing.together and len(configs) > 1 else str(min(sizes))
        hint = "each needs one; batch_size is that of all processes together"
        raise InputError(f"data.sources: a batch of {found} samples for {num_ranks} processes: {hint}")
    return max(sizes)


def _order(source: Source, config: SourceConfig, *, seed: str) -> Order:
    length = None if config.bucket is Bucket.none else partial(source.length, bucket=config.bucket)
    window = shuffle_window(source, config)
    settings = {"window": window, "batch_size": config.batch_size, "resample": config.resample}
    return Order(source.sizes, seed, length=length, **settings)


def _plan(configs: list[SourceConfig], mixing: Mixing, limits: list[int] | None) -> Together | Alternating:
    sizes = [config.batch_size for config in configs]
    if mixing is Mixing.together:
        return Together(sizes, limits)
    return Alternating(sizes, [config.weight for config in configs], limits)


def training_batches(
    stream: BatchStream, *, first: int, num_workers: int, timeout: float = 60.0
) -> Iterator[Batch]:
    """The stream from batch `first` on, read in processes that a hanging or crashing decoder may take along.

    A share that takes longer than `timeout` seconds for each 64 of its samples, or costs its process, is read
    sample by sample, and what fails alone is left out. Without workers this process reads, with no limit of
    time.
    Closing the iterator ends the workers.
    """
    numbers = range(first, len(stream))
    limit = timeout * _timeouts(stream)
    loaded = run_killable(
        _batch, numbers, context=stream, num_workers=num_workers, timeout=limit, look_ahead=2
    )
    with closing(loaded):
        for number, found in loaded:
            if isinstance(found, Failure):
                found = _one_by_one(stream, number, found, num_workers=num_workers, timeout=timeout)
            yield found


def _timeouts(stream: BatchStream) -> float:
    """How many a share may take: few processes have large ones, which are no sign of a decoder that hangs."""
    return max(1.0, stream.batch_size / stream.num_ranks / ROWS_A_TIMEOUT)


def _batch(stream: BatchStream, number: int) -> Batch:
    return stream[number]


def _read(stream: BatchStream, place: tuple[int, Row]) -> Sample | BadSample:
    return stream.read(*place)


def _one_by_one(
    stream: BatchStream, number: int, failure: Failure, *, num_workers: int, timeout: float
) -> Batch:
    if failure.kind == "error":  # not of a sample: these are in the batch's list
        raise InputError(failure.reason)
    rows = stream.rows(number)
    places = [(number, row) for row in rows]
    loaded = run_killable(_read, places, context=stream, num_workers=num_workers, timeout=timeout)
    with closing(loaded):
        found = [
            stream.bad_sample(row, one.kind, one.reason) if isinstance(one, Failure) else one
            for row, (_, one) in zip(rows, loaded)
        ]
    return stream.collate(rows, found)
