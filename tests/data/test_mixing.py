import pickle

import pytest

from coca_video.data.mixing import Alternating, Together, shares


def all_of(plan: Together | Alternating, num: int) -> list[list[int]]:
    """Each source's positions, batch after batch."""
    batches = [plan.positions(number) for number in range(num)]
    return [[position for batch in batches for position in batch[s]] for s in range(len(batches[0]))]


def test_together():
    plan = Together([3, 2])
    assert plan.num_batches is None
    assert plan.positions(4) == [range(12, 15), range(8, 10)]
    assert sum(plan.counts_before(4)) == 20


def test_sources_with_an_end():
    """Seven samples in threes and three in twos: the last batch has one, of the longer source."""
    plan = Together([3, 2], [7, 3])
    assert plan.num_batches == 3
    assert [list(map(len, plan.positions(number))) for number in range(3)] == [[3, 2], [3, 1], [1, 0]]
    assert all_of(plan, 3) == [list(range(7)), list(range(3))]
    assert [sum(plan.counts_before(number)) for number in range(4)] == [0, 5, 9, 10]


@pytest.mark.parametrize(
    "weights", [[1, 1], [0.1, 0.9], [1, 2, 3], [0.3, 0.3, 0.4], [5, 1, 1, 1, 1], [1e-3, 1], [0.1, 0.2, 0.7]]
)
def test_alternating_keeps_to_the_weights(weights):
    plan = Alternating([2] * len(weights), weights)
    assert plan.num_batches is None
    counts = [0] * len(weights)
    for number in range(2500):
        (source,) = [s for s, positions in enumerate(plan.positions(number)) if positions]
        assert plan.positions(number)[source] == range(2 * counts[source], 2 * counts[source] + 2)
        counts[source] += 1
        for count, weight in zip(counts, weights):
            assert abs(count - (number + 1) * weight / sum(weights)) < 1 + 1e-9
    assert all(counts) and sum(plan.counts_before(2500)) == 5000


def test_alternating_from_anywhere():
    settings = ([3, 2], [2, 1], [14, 5])
    plan, late = Alternating(*settings), pickle.loads(pickle.dumps(Alternating(*settings)))
    expected = [plan.positions(number) for number in range(8)]
    assert late.positions(7) == expected[7] and late.positions(2) == expected[2]
    assert sum(late.counts_before(8)) == 19 and sum(late.counts_before(0)) == 0


def test_alternating_sources_with_an_end():
    """The first ends after 3 turns, the others share the rest; all is read once."""
    plan = Alternating([3, 2, 2], [4, 1, 1], [7, 9, 4])
    assert plan.num_batches == 3 + 5 + 2
    assert all_of(plan, 10) == [list(range(7)), list(range(9)), list(range(4))]
    turns = [[bool(positions) for positions in plan.positions(number)].index(True) for number in range(10)]
    assert turns[:3].count(0) == 2 and turns[-1] == 1
    assert sum(plan.counts_before(10)) == 20


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 7])
def test_shares_are_everything_and_even(num_ranks):
    for nums in ([7], [8, 3], [1, 1, 1], [0, 5], [2, 2, 2, 2]):
        for turn in range(8):
            found = [shares(nums, rank=r, num_ranks=num_ranks, turn=turn) for r in range(num_ranks)]
            for source, num in enumerate(nums):
                rows = [row for share in found for row in share[source]]
                sizes = [len(share[source]) for share in found]
                assert rows == list(range(num)) and max(sizes) - min(sizes) <= 1
            totals = [sum(map(len, share)) for share in found]
            assert max(totals) - min(totals) <= 1


def test_shares_take_turns_at_the_one_more():
    assert [shares([7], rank=0, num_ranks=3, turn=t) for t in range(3)] == [
        [range(3)],
        [range(2)],
        [range(2)],
    ]
    sizes = [sum(len(shares([7, 4], rank=r, num_ranks=3, turn=t)[0]) for t in range(3)) for r in range(3)]
    assert sizes == [7, 7, 7]
