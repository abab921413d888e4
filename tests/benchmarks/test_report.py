from coca_video.benchmarks.report import Result, as_text

MACHINE = {
    "device": "cpu",
    "threads": 2,
    "torch": "2",
    "matmul_gflops": 167.4,
    "copy_gb_per_second": 24.06,
}


def test_the_last_line_is_the_ratio():
    rows = [["", "time"], ["ours", "1.00s"], ["open_clip", "12.00s"]]
    result = Result("a step", rows, figures={}, last="ours / open_clip's: 12.0", notes=["the same loss"])
    assert as_text(result, MACHINE).splitlines() == [
        "a step",
        "cpu, 2 threads: 167 GFLOPS (matmul), 24.1 GB/s (copy); torch 2",
        "",
        "             time",
        "ours        1.00s",
        "open_clip  12.00s",
        "",
        "the same loss",
        "",
        "ours / open_clip's: 12.0",
    ]
