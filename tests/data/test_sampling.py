import random
from collections import Counter

import numpy as np
import pytest

from coca_video.data.sampling import (
    Sampling,
    dense_clip,
    dense_start,
    sample_frames,
    segment_random,
    uniform,
)

SIZES = [(1, 1), (1, 4), (3, 8), (7, 7), (8, 3), (12, 3), (15, 3), (100, 8), (1001, 16)]


def test_uniform_takes_the_middle_of_each_segment():
    assert uniform(15, num_samples=3) == [2, 7, 12]
    assert uniform(12, num_samples=3) == [1, 5, 9]  # the earlier of two middles
    assert uniform(5, num_samples=5) == [0, 1, 2, 3, 4]
    assert uniform(9, num_samples=1) == [4]
    assert uniform(2, num_samples=4) == [0, 0, 1, 1]


@pytest.mark.parametrize(("num_frames", "num_samples"), SIZES)
def test_uniform_is_evenly_spaced(num_frames, num_samples):
    indices = uniform(num_frames, num_samples=num_samples)
    segment = num_frames / num_samples
    middles = [(i + 0.5) * segment for i in range(num_samples)]
    # A frame lasts from its index to the next, so the middle of the segment lies in it or on its edge.
    assert all(index < middle <= index + 1 for index, middle in zip(indices, middles))
    if num_frames >= num_samples:
        assert set(np.diff(indices)) <= {int(segment), int(segment) + 1}


@pytest.mark.parametrize(("num_frames", "num_samples"), SIZES)
def test_segment_random_takes_one_frame_of_each_segment(num_frames, num_samples):
    rng = random.Random(0)
    for _ in range(50):
        indices = segment_random(num_frames, num_samples=num_samples, rng=rng)
        assert len(indices) == num_samples and indices == sorted(indices)
        assert 0 <= indices[0] and indices[-1] < num_frames
        if num_frames >= num_samples:
            # The segment a frame lies in, judged by the end of the frame.
            assert [((i + 1) * num_samples - 1) // num_frames for i in indices] == list(range(num_samples))


def test_segment_random_reaches_every_frame_of_a_segment_equally():
    rng = random.Random(0)
    drawn = Counter(i for _ in range(3000) for i in segment_random(11, num_samples=3, rng=rng))
    assert set(drawn) == set(range(11))
    for segment in (range(0, 3), range(3, 7), range(7, 11)):  # 11 = 3 + 4 + 4
        for i in segment:
            assert drawn[i] == pytest.approx(3000 / len(segment), rel=0.1)


def test_segment_random_repeats_with_its_seed():
    draws = [segment_random(500, num_samples=8, rng=random.Random(seed)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_dense_clip_steps_by_stride():
    assert dense_clip(11, num_samples=3, stride=3, start=2) == [2, 5, 8]
    assert dense_clip(11, num_samples=3, stride=3, start=4) == [4, 7, 10]
    assert dense_clip(4, num_samples=4, stride=1, start=0, when_short="error") == [0, 1, 2, 3]


def test_dense_clip_of_a_short_video():
    short = dict(num_samples=5, stride=3, start=0)
    assert dense_clip(8, **short) == [0, 3, 6, 6, 6]
    assert dense_clip(8, **short, when_short="wrap") == [0, 3, 6, 0, 3]
    with pytest.raises(ValueError, match=r"5 frames are wanted, the video ends after 3: \[0, 3, 6\]"):
        dense_clip(8, **short, when_short="error")
    with pytest.raises(ValueError, match="'loop', expected one of .'repeat_last', 'wrap', 'error'"):
        dense_clip(8, **short, when_short="loop")
    with pytest.raises(ValueError, match="start is 8, expected a frame of the 8"):
        dense_clip(8, num_samples=1, stride=1, start=8)


def test_dense_start_covers_every_clip_that_fits():
    rng = random.Random(0)
    starts = {dense_start(11, num_samples=3, stride=3, rng=rng) for _ in range(200)}
    assert starts == {0, 1, 2, 3, 4}
    assert dense_start(11, num_samples=3, stride=3) == 2
    assert dense_start(6, num_samples=3, stride=3, rng=rng) == 0  # does not fit


def test_sample_frames_dispatches():
    options = dict(num_samples=3, stride=3)
    assert sample_frames(11, **options, sampling=Sampling.uniform) == uniform(11, num_samples=3)
    assert sample_frames(11, **options, sampling=Sampling.dense) == [2, 5, 8]
    for sampling in (Sampling.dense, Sampling.segment_random):
        rngs = map(random.Random, range(50))
        draws = {tuple(sample_frames(11, **options, sampling=sampling, rng=rng)) for rng in rngs}
        assert len(draws) > 4
    assert sample_frames(11, num_samples=3, sampling="uniform") == uniform(11, num_samples=3)


def test_errors_name_the_value():
    with pytest.raises(ValueError, match="num_frames is 0, expected at least 1"):
        sample_frames(0, num_samples=3, sampling=Sampling.uniform)
    with pytest.raises(ValueError, match="num_samples is -1"):
        sample_frames(5, num_samples=-1, sampling=Sampling.segment_random, rng=random.Random(0))
    with pytest.raises(ValueError, match="stride is 0"):
        sample_frames(5, num_samples=2, sampling=Sampling.dense, stride=0)
    with pytest.raises(ValueError, match="segment_random, which needs an rng"):
        sample_frames(5, num_samples=2, sampling=Sampling.segment_random)
