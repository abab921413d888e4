"""`tools/scan_videos.py`: which videos of a folder cannot be decoded whole, and why."""

import argparse
import os
from pathlib import Path

from tqdm import tqdm

from coca_video.cli import PARTIAL
from coca_video.data.scan import ScannedVideo, ScanReport, ScanSettings, Verdict, find_videos, scan
from coca_video.errors import InputError

NUM_SHOWN = 50  # bad files; all of them are in the output


def main() -> int:
    args = _parser().parse_args()
    settings = _settings(args)
    paths = find_videos(args.source)
    with tqdm(total=len(paths), desc="scanning", unit="video", dynamic_ncols=True) as bar:
        num_bad = 0

        def show(video: ScannedVideo) -> None:
            nonlocal num_bad
            num_bad += video.verdict is not Verdict.ok
            bar.set_postfix(bad=num_bad, refresh=False)
            bar.update()

        report = scan(paths, settings, num_workers=args.workers, output=args.output, on_video=show)
    print(_as_text(report, args.output))
    return PARTIAL if report.bad else 0


def _as_text(report: ScanReport, output: Path) -> str:
    counts = report.counts()
    kept = f", {report.num_kept} of them unchanged since an earlier scan" if report.num_kept else ""
    lines = [f"{len(report.videos)} videos{kept}"]
    lines += [f"  {verdict.value:20} {counts[verdict]:8}" for verdict in Verdict if counts[verdict]]
    for video in report.bad[:NUM_SHOWN]:
        what = f"{printable(video.path)} ({video.size or 0} bytes)"
        lines.append(f"{what}: {video.verdict.value}: {printable(video.reason)}")
    if len(report.bad) > NUM_SHOWN:
        lines.append(f"... and {len(report.bad) - NUM_SHOWN} more")
    return "\n".join([*lines, f"every verdict: {output}"])


def printable(text: str | Path) -> str:
    """On one line, with escapes for what a terminal cannot show: names of files may hold any bytes."""
    text = str(text)
    return text if text.isprintable() else repr(text)[1:-1]


def _settings(args: argparse.Namespace) -> ScanSettings:
    if args.workers < 0:
        raise InputError(f"--workers {args.workers}: 0 or more are needed")
    try:
        return ScanSettings(args.min_frames, args.min_seconds, args.timeout)
    except ValueError as error:
        raise InputError(str(error)) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Decodes every video from end to end and lists those that are corrupt or too short, hold"
        " less than they promise, or hang or crash the decoder. Exit code 0: all are fine; 1: some are not.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    what = "a folder, with all in it; a manifest (.jsonl); or one video"
    parser.add_argument("source", type=Path, metavar="DIR", help=what)
    workers = "processes that decode; 0 = this one, which no time limit ends and a crash does"
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help=workers)
    timeout = "after which a video counts as hanging its decoder"
    defaults = ScanSettings()
    parser.add_argument("--timeout", type=float, default=defaults.timeout, metavar="SECONDS", help=timeout)
    parser.add_argument("--min-frames", type=int, default=defaults.min_frames, metavar="N", help="in a video")
    parser.add_argument(
        "--min-seconds", type=float, default=defaults.min_seconds, metavar="S", help="of a video"
    )
    output = "a line of JSON for each video; a second scan decodes only what is new or has changed"
    parser.add_argument("--output", type=Path, default=Path("scan.jsonl"), metavar="FILE", help=output)
    return parser
