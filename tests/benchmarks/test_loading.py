import os

import pytest
from benchmark_runs import run

from coca_video.benchmarks.loading import Memory, waiting_of
from coca_video.errors import InputError

SMALL = ["--samples", 40, "--batch-size", 4, "--steps", 2, "--batches", 30, "--workers", 1, "--repeats", 1]


def test_waiting_memory_and_start_are_measured(tmp_path):
    cache = os.environ["COCA_VIDEO_CACHE"]
    result = run("loading", *SMALL, "--folder", tmp_path / "shards")
    figures = result.figures
    assert 0 <= figures["data_wait"] <= 1 and figures["steps_per_second"] > 0
    assert list(figures["loader_samples_per_second"]) == [1]
    assert figures["memory"]["batches"] == list(range(6, 30))  # all but those of the start
    assert all(len(point) == 2 and min(point) > 10**7 for point in figures["memory"]["bytes"])
    assert [row[0] for row in result.rows[1:]] == ["this process", "worker 1"]
    assert os.environ["COCA_VIDEO_CACHE"] == cache
    assert [path.name for path in (tmp_path / "shards").iterdir()] == [
        "pictures-000000.tar"
    ]  # for another time
    with pytest.raises(InputError, match=r"shards: holds 40 samples, not 41 \(--samples\)"):
        run("loading", *SMALL, "--folder", tmp_path / "shards", "--samples", 41)


def test_one_batch_shows_no_growth():
    with pytest.raises(InputError, match="--batches 1: at least two are needed"):
        run("loading", *SMALL, "--batches", 1)


def test_waiting_is_a_share_of_all_steps_time():
    log = [{"samples_per_second": 4.0, "data_wait": 0.5}, {"samples_per_second": 8.0, "data_wait": 0.0}]
    waiting = waiting_of(log, batch_size=8)  # of 2 seconds one, of 1 second nothing
    assert waiting.share == pytest.approx(1 / 3) and waiting.steps_per_second == pytest.approx(2 / 3)


def test_growth_of_memory():
    batches = [10, 20, 30]
    memory = Memory(batches, [[10**8 + 3000 * batch, 5 * 10**7] for batch in batches])
    assert memory.slope_of_all == pytest.approx(3.0)
    assert memory.rows() == [
        ["this process", "100.0 MB", "100.1 MB", "100.1 MB", "+3.00 MB"],
        ["worker 1", "50.0 MB", "50.0 MB", "50.0 MB", "+0.00 MB"],
    ]
