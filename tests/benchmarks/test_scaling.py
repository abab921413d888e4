import pytest
from benchmark_runs import run

from coca_video.benchmarks.scaling import log_log_slope
from coca_video.errors import InputError

SMALL = ["--frames", 1, 2, "--batch-sizes", 1, 3, "--text-lengths", 4, 9, "--repeats", 1]


def test_slopes_of_powers():
    sizes = [1, 2, 5, 16]
    assert log_log_slope({size: 0.3 * size for size in sizes}) == pytest.approx(1.0)
    assert log_log_slope({size: 0.02 * size**2 for size in sizes}) == pytest.approx(2.0)


def test_every_size_is_timed_and_drawn(tmp_path):
    result = run("scaling", *SMALL, "--plot", tmp_path / "plots" / "scaling.png")
    sizes = [list(curve) for curve in result.figures["seconds"].values()]
    assert sizes == [[1, 2], [1, 3], [4, 9]] and len(result.rows) == 7
    assert (tmp_path / "plots" / "scaling.png").read_bytes().startswith(b"\x89PNG")
    assert result.last.startswith("log-log slopes: frames ")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--frames", 3, 3], "--frames: a slope needs at least two different sizes"),
        (["--text-lengths", 4, 49], "--text-lengths 49: tiny reads at most 48 tokens"),
        (["--model", "tinny"], "model=tinny: there is no such model"),
    ],
)
def test_sizes_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        run("scaling", *SMALL, *options)
