"""Some frames of a video file: milliseconds a clip by codec and size, beside PyAV, decord and torchcodec."""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from coca_video.benchmarks import decoders
from coca_video.benchmarks.clips import FORMATS, can_write, write_clip
from coca_video.benchmarks.measure import take_turns
from coca_video.benchmarks.report import Result

OURS = "ours"
READERS: dict[str, decoders.Read] = {
    OURS: decoders.read_ours,
    "PyAV, all": decoders.read_all_with_pyav,
    "decord": decoders.read_with_decord,
    "torchcodec": decoders.read_with_torchcodec,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--heights", type=int, nargs="+", default=[360, 1080], help="pixels; default: %(default)s"
    )
    parser.add_argument("--seconds", type=int, default=10, help="of each clip; default: %(default)s")
    parser.add_argument("--num-frames", type=int, default=8, help="read of each clip; default: %(default)s")


def run(args: argparse.Namespace, device: torch.device) -> Result:
    """Frames are read on the CPU, whatever the device."""
    missing = decoders.why_no_torchcodec()
    readers = {name: read for name, read in READERS.items() if name != "torchcodec" or missing is None}
    seconds: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for clip, path in tqdm(_clips(Path(folder), args).items(), desc="clips", unit="clip"):
            calls: list[Callable] = [partial(read, path, args.num_frames) for read in readers.values()]
            taken = take_turns(calls, repeats=args.repeats, device=torch.device("cpu"))
            seconds[clip] = dict(zip(readers, taken))
    notes = [f"torchcodec: {missing}"] if missing else []
    notes += [
        f"{name}: PyAV has no {kind.encoder} here" for name, kind in FORMATS.items() if not can_write(kind)
    ]
    return _result(args, seconds, [*notes, "one thread for each decoder, as in a worker of a data loader"])


def _clips(folder: Path, args: argparse.Namespace) -> dict[str, Path]:
    """Every format that can be written here, at every height."""
    kinds = {name: kind for name, kind in FORMATS.items() if can_write(kind)}
    clips = {}
    for height in args.heights:
        for name, kind in tqdm(kinds.items(), desc=f"writing at {height}", unit="clip"):
            path = folder / f"{kind.encoder}-{height}{kind.suffix}"
            write_clip(path, kind, seconds=args.seconds, height=height)
            clips[f"{name} {height}"] = path
    return clips


def _result(args: argparse.Namespace, seconds: dict[str, dict[str, float]], notes: list[str]) -> Result:
    names = list(next(iter(seconds.values())))
    others = [name for name in names if name != OURS]
    ratios = {
        other: {clip: taken[OURS] / taken[other] for clip, taken in seconds.items()} for other in others
    }
    rows = [["ms a clip", *names, *(f"ours / {other}" for other in others)]]
    for clip, taken in seconds.items():
        milliseconds = [f"{1000 * taken[name]:.1f}" for name in names]
        rows.append([clip, *milliseconds, *(f"{ratios[other][clip]:.2f}" for other in others)])
    means = {other: statistics.geometric_mean(ratios[other].values()) for other in others}
    return Result(
        subject=f"{args.num_frames} frames of clips of {args.seconds} s",
        rows=rows,
        figures={"seconds": seconds, "ratios": ratios, "mean_ratios": means},
        notes=notes,
        last="time, ours / theirs, geometric mean over the clips: "
        + ", ".join(f"{other} {mean:.2f}" for other, mean in means.items()),
    )
