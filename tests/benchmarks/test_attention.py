from benchmark_runs import run

from coca_video.benchmarks.attention import CASES


def test_each_backend_is_timed_in_each_shape():
    figures = run("attention", "--batch-size", 1, "--repeats", 1).figures
    assert list(figures["seconds"]) == list(figures["ratios"]) == list(CASES)
    for case, seconds in figures["seconds"].items():
        assert list(seconds) == ["naive", "sdpa"] and min(seconds.values()) > 0
        assert figures["ratios"][case] == {"sdpa": seconds["naive"] / seconds["sdpa"]}
