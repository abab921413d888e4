import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from datasets import call, refusal
from videos import coloured_frames, save_video

from coca_video.commands.scan import NUM_SHOWN, main

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def folder(coloured_video, tmp_path, monkeypatch) -> Path:
    """A good video, to be scanned from beside the folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    shutil.copy(coloured_video, tmp_path / "clips" / "good.mp4")
    return Path("clips")


@pytest.fixture
def run_scan(capsys):
    """The exit code and what is printed."""

    def run(*arguments: object) -> tuple[int, list[str]]:
        capsys.readouterr()
        code = call(main, *arguments, "--workers", 0)
        return code, capsys.readouterr().out.splitlines()

    return run


def test_all_are_fine(run_scan, folder):
    assert run_scan(folder) == (0, ["1 videos", f"  ok {1:26}", "every verdict: scan.jsonl"])
    (line,) = map(json.loads, Path("scan.jsonl").read_text().splitlines())
    assert line["path"] == os.path.abspath("clips/good.mp4") and line["facts"]["num_frames"] == 40


def test_some_are_bad(run_scan, folder):
    (folder / "a\n\udcff.mp4").write_bytes(b"")
    (folder / "b.mp4").write_bytes(b"no video")
    code, (first, *counts, a, b, last) = run_scan(folder, "--output", "new/verdicts.jsonl")
    assert (code, first, last) == (3, "3 videos", "every verdict: new/verdicts.jsonl")
    assert [line.split() for line in counts] == [["ok", "1"], ["corrupt", "1"], ["empty", "1"]]
    assert a == "clips/a\\n\\udcff.mp4 (0 bytes): empty: 0 bytes"
    assert b.startswith("clips/b.mp4 (8 bytes): corrupt: damaged, ")
    code, again = run_scan(folder, "--output", "new/verdicts.jsonl")
    assert code == 3 and again == ["3 videos, 3 of them unchanged since an earlier scan", *counts, a, b, last]


def test_limits(run_scan, folder):
    save_video(folder / "one.mp4", coloured_frames(1), fps=10)
    assert run_scan(folder)[0] == 0
    code, lines = run_scan(folder, "--min-frames", 2)
    assert code == 3 and lines[-2].endswith("too short: 1 frames, fewer than 2")
    code, lines = run_scan(folder, "--min-seconds", 4.5)
    assert code == 3 and lines[-3].endswith("too short: 4.00 seconds, fewer than 4.5")


def test_a_long_list_is_cut(run_scan, folder):
    for i in range(NUM_SHOWN + 2):
        (folder / f"{i:03}.mp4").write_bytes(b"")
    code, lines = run_scan(folder)
    assert code == 3 and lines[-2] == "... and 2 more"
    assert sum(": empty: " in line for line in lines) == NUM_SHOWN
    assert sum('"empty"' in line for line in Path("scan.jsonl").read_text().splitlines()) == NUM_SHOWN + 2


def test_a_manifest(run_scan, folder):
    lines = [{"path": f"clips/{name}.mp4", "text": "a clip", "labels": {}} for name in ("good", "gone")]
    Path("all.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, lines = run_scan("all.jsonl")
    assert code == 3 and lines[-2] == "clips/gone.mp4 (0 bytes): missing: no such file"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["none"], "none: no video in this folder; videos end in .3gp .avi "),
        (["clips", "--workers", "-1"], "--workers -1: 0 or more are needed"),
        (["clips", "--timeout", "0"], "timeout must be more than 0 seconds, got 0.0"),
        (["clips", "--min-frames", "-1"], "min_frames must be 0 or more, got -1"),
        (["clips", "--output", "clips/good.mp4"], "clips/good.mp4:1: not a line of an earlier scan"),
    ],
)
def test_refuses(folder, capsys, arguments, message):
    Path("none").mkdir()
    size = (folder / "good.mp4").stat().st_size
    assert refusal(main, *arguments, capsys=capsys).startswith(message)
    assert not Path("scan.jsonl").exists() and (folder / "good.mp4").stat().st_size == size


@pytest.mark.skipif(os.name == "nt", reason="process groups")
def test_an_interrupted_scan_goes_on(run_scan, folder):
    video = save_video(
        folder / "00.mp4", coloured_frames(64, height=240, width=320).repeat(8, axis=0), fps=10
    )
    for i in range(1, 20):
        os.link(video, folder / f"{i:02}.mp4")
    output = Path("scan.jsonl")
    command = [sys.executable, REPOSITORY / "tools/scan_videos.py", folder, "--workers", "1"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        command, start_new_session=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        while not (output.exists() and output.read_bytes().count(b"\n") >= 2):
            assert running.poll() is None
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGKILL)
        running.communicate(timeout=120)
    num_done = output.read_bytes().count(b"\n")
    assert 2 <= num_done < 21
    code, lines = run_scan(folder)
    assert code == 0 and lines[0] == f"21 videos, {num_done} of them unchanged since an earlier scan"
    scanned = [json.loads(line)["path"] for line in output.read_text().splitlines()]
    assert sorted(scanned) == sorted(os.path.abspath(path) for path in folder.iterdir())
