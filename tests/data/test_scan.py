import json
import os
import shutil
import struct
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from videos import coloured_frames, cut_start, save_video

from coca_video.data.manifest import ClipRecord, write_manifest
from coca_video.data.scan import ScanReport, ScanSettings, Verdict, _File, _judged, find_videos, scan
from coca_video.data.workers import Failure
from coca_video.errors import InputError

SECONDS = 4  # of every video, 10 frames each


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    """Frames of which much remains in a file, so that damage hits pictures."""
    return np.random.default_rng(0).integers(0, 255, (SECONDS * 10, 48, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def originals(noise, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("originals")
    codecs = {"mp4": "libx264", "mkv": "libx264", "webm": "libvpx", "avi": "mpeg4", "ts": "libx264"}
    return {
        suffix: save_video(folder / f"video.{suffix}", noise, fps=10, codec=codec)
        for suffix, codec in codecs.items()
    }


def cut(source: Path, path: Path, *, share: float = 0.6) -> Path:
    content = source.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def damage(source: Path, path: Path) -> Path:
    """Other bytes in the middle: so many that no decoder could take all of them for a picture."""
    content = bytearray(source.read_bytes())
    middle = slice(len(content) * 4 // 10, len(content) * 6 // 10)
    content[middle] = (byte ^ 0x5A for byte in content[middle])
    path.write_bytes(content)
    return path


def promise_frames(source: Path, path: Path, num_frames: int) -> Path:
    """Make an mp4's table of times speak of so many frames (ISO 14496-12, 8.6.1.2: one run of steps)."""
    content = bytearray(source.read_bytes())
    table = content.index(b"stts")
    assert struct.unpack_from(">I", content, table + 8) == (1,)
    struct.pack_into(">I", content, table + 12, num_frames)
    path.write_bytes(content)
    return path


def verdicts(report: ScanReport, folder: Path) -> dict[str, Verdict]:
    return {video.path.relative_to(folder).as_posix(): video.verdict for video in report.videos}


def test_each_kind_of_fault(originals, coloured_video, tmp_path):
    folder = tmp_path / "clips"
    (folder / "deep" / "er").mkdir(parents=True)
    expected = {}

    def expect(verdict: Verdict, path: Path) -> None:
        expected[path.relative_to(folder).as_posix()] = verdict

    for suffix, original in originals.items():
        name = f"deep/good.{suffix.upper()}"
        shutil.copy(original, folder / name)
        expect(Verdict.ok, folder / name)
    for suffix in ("mp4", "avi", "ts"):
        expect(Verdict.corrupt, cut(originals[suffix], folder / f"cut.{suffix}"))
        expect(Verdict.corrupt, damage(originals[suffix], folder / "deep" / "er" / f"damaged.{suffix}"))
    for suffix in ("mkv", "webm"):
        expect(Verdict.over_reported, cut(originals[suffix], folder / f"cut.{suffix}"))
    expect(Verdict.over_reported, promise_frames(originals["mp4"], folder / "promises.mp4", 80))
    expect(Verdict.ok, promise_frames(originals["mp4"], folder / "one more.mp4", 41))
    expect(Verdict.ok, cut_start(coloured_video, folder / "hides its start.mp4", num_frames=11, fps=10))
    expect(Verdict.too_short, save_video(folder / "picture.mp4", coloured_frames(1), fps=10))
    for name, content, verdict in (
        ("empty.mov", b"", Verdict.empty),
        ("text.mp4", b"not a video\n", Verdict.corrupt),
    ):
        (folder / name).write_bytes(content)
        expect(verdict, folder / name)
    (folder / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    expect(Verdict.missing, folder / "gone.mp4")
    (folder / "notes.txt").write_text("no video, and none of ours")

    seen = []
    settings = ScanSettings(min_frames=2)
    report = scan(folder, settings, num_workers=2, output=tmp_path / "scan.jsonl", on_video=seen.append)
    assert verdicts(report, folder) == expected
    assert sorted(seen, key=lambda video: video.path) == report.videos
    assert report.counts() == Counter(expected.values()) and report.num_kept == 0
    assert len(report.bad) == sum(verdict is not Verdict.ok for verdict in expected.values())
    reasons = {video.path.name: video.reason for video in report.videos}
    assert reasons["cut.mkv"].startswith("4.00 seconds promised, 2.") and reasons["good.MKV"] == ""
    assert reasons["promises.mp4"] == "80 frames promised, 40 found"
    assert reasons["picture.mp4"] == "1 frames, fewer than 2"
    assert reasons["damaged.mp4"].startswith("damaged, after ") and reasons["text.mp4"].startswith("damaged")
    assert all(video.size == (video.path.stat().st_size if video.path.exists() else None) for video in seen)


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize(
    "name", ["-x.mp4", "a b: c.mp4", "file:%03d.mp4", "new\nline.mp4", "\udcff\udcfe.mp4"]
)
def test_awkward_names(coloured_video, tmp_path, monkeypatch, name, num_workers):
    monkeypatch.chdir(tmp_path)
    try:
        shutil.copy(coloured_video, tmp_path / name)
    except (OSError, UnicodeError):
        pytest.skip("this file system has no such names")
    for num_kept in (0, 1):
        report = scan(Path(), ScanSettings(), num_workers=num_workers, output=Path("scan.jsonl"))
        assert verdicts(report, Path()) == {name: Verdict.ok} and report.num_kept == num_kept
    assert len(Path("scan.jsonl").read_text(encoding="ascii").splitlines()) == 1


def test_times_out_and_is_tried_again_with_another_limit(tmp_path):
    video = save_video(tmp_path / "long.mp4", coloured_frames(64).repeat(8, axis=0), fps=10)
    output = tmp_path / "scan.jsonl"

    def judge(timeout: float) -> tuple[Verdict, int]:
        report = scan([video], ScanSettings(timeout=timeout), num_workers=1, output=output)
        return report.videos[0].verdict, report.num_kept

    assert judge(0.001) == (Verdict.timeout, 0)
    assert judge(0.001) == (Verdict.timeout, 1)
    assert judge(60) == (Verdict.ok, 0)
    assert judge(0.001) == (Verdict.ok, 1)


@pytest.mark.parametrize(
    ("failure", "verdict"),
    [
        (Failure("crash", "its process died of SIGABRT"), Verdict.crash),
        (Failure("timeout", "took longer than 600 seconds"), Verdict.timeout),
        (Failure("error", "is torn"), Verdict.corrupt),
    ],
)
def test_failures_have_their_verdicts(coloured_video, failure, verdict):
    named = replace(failure, reason=f"{coloured_video}: {failure.reason}")
    for found in (failure, named):
        judged = _judged(_File(coloured_video), found, ScanSettings())
        assert (judged.verdict, judged.reason, judged.timeout) == (verdict, failure.reason, 600)


class TestKeptVerdicts:
    @pytest.fixture
    def folder(self, coloured_video, tmp_path) -> Path:
        folder = tmp_path / "clips"
        folder.mkdir()
        for name in ("a.mp4", "b.mp4", "c.mp4"):
            shutil.copy(coloured_video, folder / name)
        (folder / "d.mp4").write_bytes(b"no video")
        (folder / "e.mp4").write_bytes(b"")
        return folder

    @pytest.fixture
    def run(self, folder, tmp_path):
        def run(**settings: float) -> ScanReport:
            output = tmp_path / "new" / "scan.jsonl"
            return scan(folder, ScanSettings(**settings), num_workers=0, output=output)

        run.output = tmp_path / "new" / "scan.jsonl"
        run.lines = lambda: [json.loads(line) for line in run.output.read_text().splitlines()]
        return run

    def test_a_second_scan_decodes_nothing(self, run, folder):
        first, lines = run(), run.lines()
        assert [line["path"] for line in lines] == [str(folder / f"{name}.mp4") for name in "eabcd"]
        second = run()
        assert (first.num_kept, second.num_kept) == (0, 5)
        assert second.videos == first.videos and run.lines() == lines

    def test_other_limits_are_applied_to_what_is_known(self, run, folder):
        run()
        report = run(min_frames=41)
        assert report.num_kept == 5
        assert [video.verdict for video in report.videos[:3]] == [Verdict.too_short] * 3
        assert [line["verdict"] for line in run.lines()] == (
            ["empty"] + ["ok"] * 3 + ["corrupt"] + ["too short"] * 3
        )
        assert run(min_seconds=4).videos == run().videos
        assert run(min_seconds=4.1).videos[0].reason == "4.00 seconds, fewer than 4.1"

    def test_what_has_changed_is_decoded_again(self, run, folder):
        run()
        (folder / "a.mp4").write_bytes(b"damaged meanwhile")
        content = (folder / "b.mp4").read_bytes()
        (folder / "b.mp4").write_bytes(b"x" * len(content))
        os.utime(folder / "b.mp4", ns=(0, 0))
        (folder / "c.mp4").unlink()
        report = run()
        assert [video.verdict.value for video in report.videos] == ["corrupt"] * 3 + ["empty"]
        assert report.num_kept == 2
        assert run().videos == report.videos

    @pytest.mark.parametrize("length", [1, 9, 40, -1])
    def test_half_a_line_at_the_end_is_scanned_again(self, run, length):
        whole = run()
        content = run.output.read_bytes()
        *others, last = content.splitlines(keepends=True)
        run.output.write_bytes(b"".join(others) + last[:length])
        resumed = run()
        assert resumed.videos == whole.videos and resumed.num_kept == 4
        assert run.output.read_bytes() == content

    @pytest.mark.parametrize(
        "content",
        [
            b"notes",
            b"notes\n",
            b'{"path": "a.mp4", "text": "", "labels": {}}\n',
            b"\xff\xd8\n",
            b"[]\n",
            b"\n",
        ],
    )
    def test_another_file_is_left_alone(self, run, content):
        run.output.parent.mkdir()
        run.output.write_bytes(content)
        with pytest.raises(InputError, match="scan.jsonl:1: not a line of an earlier scan"):
            run()
        assert run.output.read_bytes() == content


class TestFindVideos:
    def test_of_a_folder_with_links(self, coloured_video, tmp_path):
        folder = tmp_path / "clips"
        (folder / "one").mkdir(parents=True)
        (folder / "x.mp4").mkdir()
        for target in (folder / "one" / "a.mp4", tmp_path / "elsewhere" / "b.WebM"):
            target.parent.mkdir(exist_ok=True)
            shutil.copy(coloured_video, target)
        (folder / "one" / "up").symlink_to(folder)  # a circle
        (folder / "two").symlink_to(tmp_path / "elsewhere")
        (folder / "two again").symlink_to(tmp_path / "elsewhere")
        (folder / "link.mp4").symlink_to(coloured_video)
        found = [path.relative_to(folder).as_posix() for path in find_videos(folder)]
        assert found == ["link.mp4", "one/a.mp4", "two/b.WebM"]

    def test_of_a_manifest(self, coloured_video, tmp_path):
        manifest = tmp_path / "clips.jsonl"
        paths = [tmp_path / "b.mp4", coloured_video, tmp_path / "b.mp4"]
        write_manifest(manifest, [ClipRecord(path, "a clip", {}) for path in paths])
        found = find_videos(manifest)
        assert [path.resolve() for path in found] == [tmp_path / "b.mp4", coloured_video.resolve()]

    def test_of_a_file(self, coloured_video):
        assert find_videos(coloured_video) == [coloured_video]

    def test_refuses_what_has_none(self, tmp_path):
        (tmp_path / "notes.txt").write_text("none here")
        for path, reason in (
            (tmp_path, "no video in this folder"),
            (tmp_path / "nowhere", "no such folder"),
            (tmp_path / "notes.txt", "expected a folder, a manifest"),
        ):
            with pytest.raises(InputError, match=f"^{path}: {reason}"):
                find_videos(path)


@pytest.mark.parametrize(
    ("name", "value"), [("min_frames", -1), ("min_seconds", -0.1), ("timeout", 0), ("timeout", float("nan"))]
)
def test_settings(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        ScanSettings(**{name: value})
