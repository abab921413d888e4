"""Which samples of which sources make global batch n, and which of them are a process' share.

Positions count a source's samples in its own order, from the first one on: a source that gives b samples to
each of its batches gives the positions 0 to b - 1 to the first. A source with a limit ends there.
"""

from array import array
from collections.abc import Sequence
from enum import Enum
from fractions import Fraction
from itertools import accumulate
from math import lcm


class Mixing(str, Enum):
    together = "together"  # every batch holds samples of each source
    alternating = "alternating"  # a batch is of one source


class Together:
    """Every batch has `batch_sizes[s]` samples of source s."""

    def __init__(self, batch_sizes: Sequence[int], limits: Sequence[int] | None = None):
        """limits: samples that each source has to give; the batches after a source's end are without it."""
        self._sizes, self._limits = list(batch_sizes), limits

    @property
    def num_batches(self) -> int | None:
        """None: without end."""
        return self._limits and max(-(-limit // size) for size, limit in zip(self._sizes, self._limits))

    def positions(self, number: int) -> list[range]:
        """Of each source, those that batch `number` holds."""
        return [self._of_source(s, number) for s in range(len(self._sizes))]

    def counts_before(self, number: int) -> list[int]:
        """Samples of each source in the batches before this one."""
        return [self._of_source(s, number).start for s in range(len(self._sizes))]

    def _of_source(self, s: int, number: int) -> range:
        return _limited(number * self._sizes[s], self._sizes[s], self._limits and self._limits[s])


class Alternating:
    """A batch is of one source. After n batches, source s has had n * weight (of a sum of 1), within one.

    Each turn goes to the source whose next batch is due first, among those that are not ahead of their share
    (Balinski and Young's quota method, 1975). Where a source ends, the others share the rest by the weights.
    """

    def __init__(
        self, batch_sizes: Sequence[int], weights: Sequence[float], limits: Sequence[int] | None = None
    ):
        self._sizes, self._limits = list(batch_sizes), limits
        self._weights = _whole(weights)
        self._turns = array("q")  # the source of each batch, as far as they are known
        self._earlier = array("q")  # how many batches that source had before
        self._num_made = [0] * len(self._sizes)  # batches of each source
        self._num_lately = [0] * len(self._sizes)  # of them, since another source's end

    @property
    def num_batches(self) -> int | None:
        """None: without end."""
        return self._limits and sum(-(-limit // size) for size, limit in zip(self._sizes, self._limits))

    def positions(self, number: int) -> list[range]:
        """Of each source, those that batch `number` holds: none but for one source."""
        self._plan(number + 1)
        chosen, earlier = self._turns[number], self._earlier[number]
        return [self._of_source(s, earlier) if s == chosen else range(0) for s in range(len(self._sizes))]

    def counts_before(self, number: int) -> list[int]:
        """Samples of each source in the batches before this one."""
        self._plan(number)
        turns = self._turns[:number]
        return [self._of_source(s, turns.count(s)).start for s in range(len(self._sizes))]

    def _of_source(self, s: int, number: int) -> range:
        return _limited(number * self._sizes[s], self._sizes[s], self._limits and self._limits[s])

    def _plan(self, num_batches: int) -> None:
        while len(self._turns) < num_batches:
            chosen = self._next()
            self._turns.append(chosen)
            self._earlier.append(self._num_made[chosen])
            self._num_made[chosen] += 1
            self._num_lately[chosen] += 1
            if self._has_ended(chosen):
                self._num_lately = [0] * len(self._sizes)

    def _next(self) -> int:
        going_on = [s for s in range(len(self._sizes)) if not self._has_ended(s)]
        whole = sum(self._weights[s] for s in going_on)
        number = sum(self._num_lately) + 1
        not_ahead = [s for s in going_on if self._num_lately[s] * whole < number * self._weights[s]]
        return min(not_ahead, key=lambda s: (self._num_lately[s] + 1) / self._weights[s])

    def _has_ended(self, s: int) -> bool:
        return self._limits is not None and self._num_made[s] * self._sizes[s] >= self._limits[s]


def _whole(weights: Sequence[float]) -> list[int]:
    """In the same proportions; exact, so that no rounding makes two processes disagree."""
    exact = [Fraction(str(weight)) for weight in weights]
    common = lcm(*(weight.denominator for weight in exact))
    return [int(weight * common) for weight in exact]


def _limited(start: int, num: int, limit: int | None) -> range:
    if limit is None:
        return range(start, start + num)
    return range(min(start, limit), min(start + num, limit))


def shares(nums: Sequence[int], *, rank: int, num_ranks: int, turn: int) -> list[range]:
    """Of each source's `nums[s]` rows in a batch, those of one process.

    The shares of ranks 0, 1, ... stand one behind another and are all the rows. They are even up to one row,
    for each source and for all together; which ranks have the one more changes with `turn`, the batch's
    number.

        7 rows of 3 ranks, turn 0: aaabbcc, turn 1: aabbbcc
    """
    spare = [num % num_ranks for num in nums]
    firsts = [turn + before for before in accumulate(spare, initial=0)]
    return [_share(num, rank, num_ranks, first) for num, first in zip(nums, firsts)]


def _share(num: int, rank: int, num_ranks: int, first: int) -> range:
    """The ranks from `first` on, counted in a circle, have what is left over."""
    each, spare = divmod(num, num_ranks)
    more = [(other - first) % num_ranks < spare for other in range(rank + 1)]
    start = rank * each + sum(more[:rank])
    return range(start, start + each + more[rank])
