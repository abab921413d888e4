"""Finding the videos of a folder that would fail, or deceive, whoever reads them later.

Every file is decoded from end to end in a process that can be killed. What was found is kept in a file of
JSON lines as it comes, so that an interrupted scan goes on, and one with other limits decodes nothing again:

    {"path": "/data/clips/a.mp4", "size": 1093, "mtime": 1735689600000000000, "verdict": "too short",
     "reason": "1 frames, fewer than 2", "facts": {"num_frames": 1, ...}, "timeout": 600}

The last line of a path counts.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path

from coca_video.data.manifest import read_manifest
from coca_video.data.video import VideoFacts, check_video
from coca_video.data.workers import Failure, run_killable
from coca_video.errors import InputError

SUFFIXES = set(".mp4 .mkv .webm .avi .mov .m4v .mpg .mpeg .wmv .flv .3gp .ogv .ts".split())
SPARE_FRAMES = 2  # that a container may promise too many: some count what only begins the next picture
SPARE_SECONDS = 0.5  # likewise: sound often goes on for a moment after the last frame
LINE_START = b'{"path": '
NOT_A_SCAN = "not a line of an earlier scan; give another --output"
LOOK_AHEAD = 64  # for each worker: verdicts are small, and a film that takes minutes should hold up nobody


class Verdict(str, Enum):
    ok = "ok"
    corrupt = "corrupt"  # cannot be opened, is cut short, or has damaged frames
    empty = "empty"  # 0 bytes
    missing = "missing"  # in a manifest, or the target of a link, and not there
    too_short = "too short"
    over_reported = "over-reported"  # fewer frames or seconds than the container promises
    timeout = "timed out"
    crash = "crashed the decoder"


@dataclass
class ScanSettings:
    min_frames: int = 1
    min_seconds: float = 0.0
    timeout: float = 600.0  # seconds for one video

    def __post_init__(self) -> None:
        if self.min_frames < 0:
            raise ValueError(f"min_frames must be 0 or more, got {self.min_frames}")
        if not self.min_seconds >= 0:
            raise ValueError(f"min_seconds must be 0 or more, got {self.min_seconds}")
        if not self.timeout > 0:
            raise ValueError(f"timeout must be more than 0 seconds, got {self.timeout}")


@dataclass
class ScannedVideo:
    path: Path  # as it was given
    verdict: Verdict
    reason: str  # one line; "" for what is ok
    size: int | None  # bytes; None for a missing file, as with `mtime`
    mtime: int | None  # nanoseconds
    facts: VideoFacts | None = None  # None for what was not decoded to its end
    timeout: float | None = None  # seconds: the limit under which it was decoded


@dataclass
class ScanReport:
    videos: list[ScannedVideo] = field(default_factory=list)  # in the order of their paths
    num_kept: int = 0  # of them unchanged since an earlier scan, and not decoded again

    @property
    def bad(self) -> list[ScannedVideo]:
        return [video for video in self.videos if video.verdict is not Verdict.ok]

    def add(self, video: ScannedVideo, book: "_Book", on_video: Callable[[ScannedVideo], None]) -> None:
        self.videos.append(video)
        book.keep(video)
        on_video(video)

    def counts(self) -> Counter[Verdict]:
        return Counter(video.verdict for video in self.videos)


def find_videos(source: Path) -> list[Path]:
    """The videos of a folder and of the folders in it; those that a manifest (.jsonl) names; or one video.

    A folder counts once, however many links lead to it. Raises InputError where there is no video.
    """
    if source.is_dir():
        paths = sorted(_below(source))
        if not paths:
            raise InputError(f"{source}: no video in this folder; videos end in {' '.join(sorted(SUFFIXES))}")
        return paths
    if not source.exists():
        raise InputError(f"{source}: no such folder")
    if source.suffix.lower() == ".jsonl":
        return list(dict.fromkeys(record.path for record in read_manifest(source)))
    if source.suffix.lower() not in SUFFIXES:
        raise InputError(f"{source}: expected a folder, a manifest (.jsonl) or a video")
    return [source]


def _below(root: Path) -> Iterator[Path]:
    visited = set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=_fail):
        subfolders.sort()
        place = os.path.realpath(folder)
        if place in visited:  # a link in a circle, or a second one
            subfolders.clear()
            continue
        visited.add(place)
        for name in names:
            path = Path(folder, name)
            if path.suffix.lower() in SUFFIXES and (path.is_file() or not path.exists()):
                yield path


def _fail(error: OSError) -> None:
    raise error


def scan(
    source: Path | Iterable[Path],
    settings: ScanSettings,
    *,
    num_workers: int,
    output: Path,
    on_video: Callable[[ScannedVideo], None] = lambda video: None,
) -> ScanReport:
    """Judges every video of `source`, a folder or paths, and keeps what is found in `output`.

    A file that `output` speaks of, with the same size and time of change, is judged by what is known of it.
    One that was killed at its time limit is decoded again if the limit is another. `on_video` is called with
    each verdict. Without workers there is no time limit, and a crash of the decoder is ours.

    Raises InputError where there is no video, and for an `output` that is not a scan's.
    """
    paths = find_videos(source) if isinstance(source, Path) else source
    book = _Book(output)
    report, unknown = ScanReport(), []
    with book.open():
        for path in dict.fromkeys(paths):
            file = _File(path)
            line = book.line(file)
            video = _without_decoding(file, line, settings)
            if video is None:
                unknown.append(file)
            else:
                report.num_kept += line is not None
                report.add(video, book, on_video)
        limits = {"num_workers": num_workers, "timeout": settings.timeout, "look_ahead": LOOK_AHEAD}
        for file, found in run_killable(_decode, unknown, **limits):
            report.add(_judged(file, found, settings), book, on_video)
    report.videos.sort(key=lambda video: video.path)
    return report


class _File:
    """A file as it is now: `size` in bytes and `mtime` in nanoseconds, both None if it is missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            found = path.stat()
        except OSError:  # not there, or in a circle of links
            self.size = self.mtime = None
        else:
            self.size, self.mtime = found.st_size, found.st_mtime_ns

    @property
    def key(self) -> str:
        return os.path.abspath(self.path)


def _decode(file: _File) -> VideoFacts:
    return check_video(file.key)  # ffmpeg takes what stands before a relative path's colon for a protocol


def _without_decoding(file: _File, line: dict | None, settings: ScanSettings) -> ScannedVideo | None:
    """The verdict on a file that needs no decoding; None for the others."""
    if file.size is None:
        return _video(file, Verdict.missing, "no such file")
    if file.size == 0:
        return _video(file, Verdict.empty, "0 bytes")
    if line is None:
        return None
    if line["facts"] is not None:
        facts = VideoFacts(**line["facts"])
        return _video(file, *_verdict(facts, settings), facts=facts, timeout=line["timeout"])
    verdict = Verdict(line["verdict"])
    if verdict is Verdict.timeout and line["timeout"] != settings.timeout:
        return None
    return _video(file, verdict, line["reason"], timeout=line["timeout"])


def _judged(file: _File, found: VideoFacts | Failure, settings: ScanSettings) -> ScannedVideo:
    if isinstance(found, VideoFacts):
        return _video(file, *_verdict(found, settings), facts=found, timeout=settings.timeout)
    verdict = {"error": Verdict.corrupt, "timeout": Verdict.timeout, "crash": Verdict.crash}[found.kind]
    return _video(file, verdict, found.reason.removeprefix(f"{file.key}: "), timeout=settings.timeout)


def _verdict(facts: VideoFacts, settings: ScanSettings) -> tuple[Verdict, str]:
    frames, seconds = facts.num_frames, facts.seconds
    if (facts.reported_frames or 0) > frames + SPARE_FRAMES:
        return Verdict.over_reported, f"{facts.reported_frames} frames promised, {frames} found"
    if (facts.reported_seconds or 0) > seconds + SPARE_SECONDS:
        return Verdict.over_reported, f"{facts.reported_seconds:.2f} seconds promised, {seconds:.2f} found"
    if frames < settings.min_frames:
        return Verdict.too_short, f"{frames} frames, fewer than {settings.min_frames}"
    if round(seconds, 3) < settings.min_seconds:
        return Verdict.too_short, f"{seconds:.2f} seconds, fewer than {settings.min_seconds:g}"
    return Verdict.ok, ""


def _video(file: _File, verdict: Verdict, reason: str, **more: object) -> ScannedVideo:
    return ScannedVideo(file.path, verdict, reason, file.size, file.mtime, **more)


class _Book:
    """The file of earlier verdicts, and the lines that are added to it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        content = path.read_bytes() if path.exists() else b""
        *whole, rest = content.split(b"\n")
        self._length = len(content) - len(rest)  # of the whole lines: an interrupted scan leaves half a one
        lines = (_parse(line, where=f"{path}:{number}") for number, line in enumerate(whole, start=1))
        self._lines = {line["path"]: line for line in lines}
        if rest and not (rest.startswith(LINE_START) or LINE_START.startswith(rest)):
            raise InputError(f"{path}:{len(whole) + 1}: {NOT_A_SCAN}")

    @contextmanager
    def open(self) -> Iterator[None]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "a", encoding="utf-8", buffering=1) as self._file:
            self._file.truncate(self._length)
            yield

    def line(self, file: _File) -> dict | None:
        """What is known of this file, unless it has changed since."""
        line = self._lines.get(file.key)
        return line if line and (line["size"], line["mtime"]) == (file.size, file.mtime) else None

    def keep(self, video: ScannedVideo) -> None:
        key = os.path.abspath(video.path)
        line = json.loads(json.dumps(asdict(video) | {"path": key}))
        if line != self._lines.get(key):
            # In ASCII, for not every name of a file is UTF-8.
            self._file.write(json.dumps(line) + "\n")


def _parse(line: bytes, *, where: str) -> dict:
    try:
        entry = json.loads(line)
        video = ScannedVideo(**entry | {"verdict": Verdict(entry["verdict"])})
        if video.facts is not None:
            VideoFacts(**video.facts)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{where}: {NOT_A_SCAN}") from error
    return entry
