import pickle
import random
import tracemalloc
from collections import Counter

import pytest

from coca_video.data.order import Order

SIZES = [3, 0, 4, 1, 5, 2, 6]  # 21 samples


def epoch(order: Order, number: int = 0) -> list[int]:
    num = len(order)
    return [order.index(position) for position in range(number * num, (number + 1) * num)]


def shard_of(order: Order, index: int) -> int:
    return next(i for i in range(len(order.sizes)) if index in order.shard(i))


def test_without_a_window_it_is_a_plain_shuffle_of_the_epochs_seed():
    """As runs of earlier versions were read."""
    order = Order(SIZES, "7 order 1")
    for number in (0, 1, 5):
        expected = list(range(21))
        random.Random(f"7 order 1 {number}").shuffle(expected)
        assert epoch(order, number) == expected
        assert epoch(Order(SIZES, "7 order 1", window=7), number) == expected
        assert epoch(Order([21], "7 order 1", window=1), number) == expected


@pytest.mark.parametrize("window", [1, 2, 3, 6, None])
@pytest.mark.parametrize("bucket", [False, True])
def test_an_epoch_holds_every_sample_once(window, bucket):
    lengths = [random.Random(i).randrange(5) for i in range(21)]
    length = lengths.__getitem__ if bucket else None
    order = Order(SIZES, "0", window=window, length=length, batch_size=4)
    epochs = [epoch(order, number) for number in range(4)]
    assert all(sorted(each) == list(range(21)) for each in epochs)
    assert len(set(map(tuple, epochs))) == 4
    assert epoch(Order(SIZES, "1", window=window, length=length, batch_size=4)) != epochs[0]


def test_positions_may_be_asked_for_in_any_order_and_anywhere():
    order = Order(SIZES, "0", window=2)
    expected = [order.index(position) for position in range(100)]
    again = pickle.loads(pickle.dumps(order))
    positions = random.Random(0).sample(range(100), k=100)
    assert [again.index(position) for position in positions] == [expected[p] for p in positions]
    assert order.index(10**12) in range(21)


def test_little_is_kept_however_many_epochs_are_read():
    order = Order([20_000], "0")
    order.index(0)
    tracemalloc.start()
    for number in range(5):
        order.index(number * len(order))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 3 * 8 * len(order)  # bytes: an epoch and the one before
    assert len(pickle.dumps(order)) < 1000


def test_a_window_is_of_few_shards_and_mixes_them():
    order = Order([50] * 20, "0", window=2)
    found = [shard_of(order, index) for index in epoch(order)]
    windows = [found[i : i + 100] for i in range(0, 1000, 100)]
    assert all(
        Counter(each) == {shard: 50 for shard in set(each)} and len(set(each)) == 2 for each in windows
    )
    assert all(20 < sum(a != b for a, b in zip(each, each[1:])) < 80 for each in windows)
    pairs = {frozenset(each) for each in windows}
    assert pairs != {frozenset((i, i + 1)) for i in range(0, 20, 2)}  # nor are they neighbours


@pytest.mark.parametrize("window", [1, 2, None])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_batches_are_of_similar_length(window, number):
    """All but those that windows share, whose samples are of any length."""
    sizes, batch_size = [37] * 4, 5
    rng = random.Random(0)
    lengths = [rng.randrange(1000) for _ in range(sum(sizes))]
    order = Order(sizes, "0", window=window, length=lengths.__getitem__, batch_size=batch_size)
    size = 37 * (window or 4)
    num_whole, spreads, means = 0, [], []
    for start in range(0, (number + 1) * len(order), batch_size):
        if start < number * len(order):
            continue
        if start // size == (start + batch_size - 1) // size:
            batch = [lengths[order.index(position)] for position in range(start, start + batch_size)]
            spreads.append(max(batch) - min(batch))
            means.append(sum(batch) / batch_size)
            num_whole += 1
    assert num_whole >= 24
    assert sum(spreads) / num_whole < 1000 / (size / batch_size) * 1.5
    assert means != sorted(means) and means != sorted(means, reverse=True)


def test_batches_of_one_length_are_shuffled_too():
    order = Order([30], "0", length=lambda index: 1, batch_size=5)
    first, second = epoch(order), epoch(order, 1)
    assert first != second and sorted(first) == sorted(second) and first != sorted(first)


@pytest.mark.parametrize("window", [None, 1, 3])
def test_drawing_again_and_again(window):
    """Every sample equally often in the long run, whatever its shard's size; some twice first."""
    order = Order(SIZES, "0", window=window, resample=True)
    drawn = [order.index(position) for position in range(21 * 600)]
    counts = Counter(drawn)
    assert set(counts) == set(range(21))
    assert all(400 < count < 800 for count in counts.values())
    assert all(len(set(drawn[i : i + 21])) < 21 for i in range(0, 210, 21))
    if window == 1:
        assert all(len({shard_of(order, index) for index in drawn[i : i + 3]}) == 1 for i in range(0, 210, 3))


def test_settings_are_checked():
    for sizes in ([], [0, 0], [3, -1]):
        with pytest.raises(ValueError, match="sizes must be of at least one sample"):
            Order(sizes, "0")
    for wrong in ({"window": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match="expected positive counts"):
            Order([3], "0", **wrong)
