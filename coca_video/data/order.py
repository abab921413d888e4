"""Which sample comes when: the n-th sample of a source, computed from n alone. Integers in, integers out.

Shards are shuffled, and samples within windows of so many consecutive shards: whoever reads a part of the
order opens few shards. In the picture a letter is a shard of three samples, a window two shards:

    shards as they lie     aaa bbb ccc ddd
    shards shuffled        ccc aaa | ddd bbb
    an epoch               caacac  | bddbdb

A window that holds all shards is a plain shuffle. Every epoch has an order of its own, with each sample once.

With lengths, the samples of a window are sorted by them and cut into batches, whose order is then shuffled:

    lengths of a window    3 1 2 2 1 3    batches of two    (2 2) (1 1) (3 3)
"""

import random
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache, partial
from itertools import accumulate
from typing import Any


@dataclass(frozen=True)
class Order:
    """The order of a source's samples, epoch after epoch; a pure function of its settings.

    length: of a sample, for batches of similar length; asked once a sample and epoch.
    batch_size: of the source's batches, which begin at position 0; only with `length`.
    resample: samples are drawn with replacement, all equally often on average: an epoch is then only a number
        of draws. Each stretch of the order draws `window` shards, larger ones more often, and its samples
        from these.
    """

    sizes: Sequence[int]  # samples of each shard
    seed: str
    window: int | None = None  # shards that are shuffled together; None: all
    length: Callable[[int], int] | None = None
    batch_size: int = 1
    resample: bool = False

    def __post_init__(self) -> None:
        if not any(self.sizes) or min(self.sizes) < 0:
            raise ValueError(f"sizes must be of at least one sample, got {list(self.sizes)}")
        if self.batch_size < 1 or (self.window is not None and self.window < 1):
            raise ValueError(f"expected positive counts, got {self.batch_size} and {self.window}")

    def __len__(self) -> int:
        """Samples of an epoch."""
        return self._shard_starts[-1]

    def index(self, position: int) -> int:
        """Which sample is read at this position, counted from the first one of the first epoch."""
        epoch, within = divmod(position, len(self))
        starts, _ = self._kept_windows(epoch)
        number = bisect_right(starts, within) - 1
        return self._kept_samples(epoch, number)[within - starts[number]]

    def __getstate__(self) -> dict[str, Any]:
        """Without what is kept: another process makes it anew."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @cached_property
    def _kept_windows(self) -> Callable[[int], tuple[list[int], list[list[int]]]]:
        """Of two epochs: a batch asks for one position at a time, and may end in the next epoch."""
        return lru_cache(maxsize=2)(partial(_windows, self))

    @cached_property
    def _kept_samples(self) -> Callable[[int, int], array]:
        """As few: these are the most memory that reading takes, 8 bytes a sample."""
        return lru_cache(maxsize=2)(partial(_samples, self))

    @cached_property
    def _shard_starts(self) -> list[int]:
        return [0, *accumulate(self.sizes)]

    def shard(self, number: int) -> range:
        """The samples of a shard."""
        return range(self._shard_starts[number], self._shard_starts[number + 1])


def _windows(order: Order, epoch: int) -> tuple[list[int], list[list[int]]]:
    """Where each window of an epoch begins, the end of the last one, and the shards of each."""
    num_shards, window = len(order.sizes), order.window or len(order.sizes)
    shards = list(range(num_shards))
    if window < num_shards:
        random.Random(f"{order.seed} {epoch} shards").shuffle(shards)
    windows = [shards[i : i + window] for i in range(0, num_shards, window)]
    if order.resample:  # each draws its shards anew: as many samples from each
        return [i * len(order) // len(windows) for i in range(len(windows) + 1)], windows
    return [0, *accumulate(sum(order.sizes[i] for i in each) for each in windows)], windows


def _samples(order: Order, epoch: int, number: int) -> array:
    """The samples of a window of an epoch, in the order in which they are read."""
    starts, windows = order._kept_windows(epoch)
    # A single window has the seed that a plain shuffle always had: old runs read what they did.
    rng = random.Random(f"{order.seed} {epoch}" + (f" window {number}" if len(windows) > 1 else ""))
    if order.resample:
        samples = _drawn(order, rng, num=starts[number + 1] - starts[number])
    else:
        samples = array("q", (i for shard in windows[number] for i in order.shard(shard)))
        rng.shuffle(samples)
    if order.length is None:
        return samples
    before = (epoch * len(order) + starts[number]) % order.batch_size
    return _in_batches(samples, order.length, rng, batch_size=order.batch_size, before=before)


def _drawn(order: Order, rng: random.Random, *, num: int) -> array:
    num_shards = len(order.sizes)
    shards = rng.choices(range(num_shards), weights=order.sizes, k=order.window or num_shards)
    if order.window is None or order.window >= num_shards:  # no need to keep to a few
        return array("q", (rng.randrange(len(order)) for _ in range(num)))
    return array("q", (rng.choice(order.shard(rng.choice(shards))) for _ in range(num)))


def _in_batches(
    samples: array, length: Callable[[int], int], rng: random.Random, *, batch_size: int, before: int
) -> array:
    """Shuffled samples as batches of similar length, in random order.

    before: samples of the window before that the first batch begins with. It and the last one, which the next
    window fills up, keep their places, but may be of any length.
    """
    head = min(-before % batch_size, len(samples))
    num_whole, tail = divmod(len(samples) - head, batch_size)
    cuts = [head, *[batch_size] * num_whole, tail]
    places = list(range(len(cuts)))  # of the batches among the sorted samples
    rng.shuffle(places)
    by_length = array("q", sorted(samples, key=length))
    ends = list(accumulate(cuts[place] for place in places))
    end_of = dict(zip(places, ends))
    batches = array("q")
    for place, num in enumerate(cuts):
        batches += by_length[end_of[place] - num : end_of[place]]
    return batches
