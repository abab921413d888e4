"""How our model's time grows with frames, batch and text: slopes of log time by log size."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from coca_video.benchmarks.measure import take_turns
from coca_video.benchmarks.plot import check_can_plot, save_log_log
from coca_video.benchmarks.report import Result
from coca_video.cli import load_option
from coca_video.errors import InputError
from coca_video.models.coca import CoCa, CoCaConfig

NUM_FRAMES, BATCH_SIZE = 4, 2  # where they are not what is varied


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="tiny", help="a preset of configs/model; default: %(default)s")
    sizes = {
        "--frames": ([1, 2, 4, 8, 16, 32, 64], "of a clip"),
        "--batch-sizes": ([1, 2, 4, 8, 16, 32], "clips"),
        "--text-lengths": ([6, 12, 24, 48], "tokens"),
    }
    for option, (default, what) in sizes.items():
        parser.add_argument(
            option, type=int, nargs="+", default=default, help=f"{what}; default: %(default)s"
        )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also as a picture (PNG)")


@torch.inference_mode()
def run(args: argparse.Namespace, device: torch.device) -> Result:
    config = load_option(CoCaConfig, "model", args.model)
    _check(args, config)
    torch.manual_seed(0)
    model = CoCa(config).eval().to(device)
    curves = {}
    for name, calls in tqdm(_calls(model, args).items(), desc="curves", unit="curve"):
        seconds = take_turns(list(calls.values()), repeats=args.repeats, device=device)
        curves[name] = dict(zip(calls, seconds))
    slopes = {name: log_log_slope(seconds) for name, seconds in curves.items()}
    if args.plot is not None:
        save_log_log(args.plot, curves, slopes)
    return _result(args, curves, slopes)


def _check(args: argparse.Namespace, config: CoCaConfig) -> None:
    if args.plot is not None:
        check_can_plot()
    for option in ("frames", "batch_sizes", "text_lengths"):
        if len(set(getattr(args, option))) < 2:
            raise InputError(f"--{option.replace('_', '-')}: a slope needs at least two different sizes")
    longest = config.text.context_length
    if max(args.text_lengths) > longest:
        raise InputError(
            f"--text-lengths {max(args.text_lengths)}: {args.model} reads at most {longest} tokens"
        )


def _calls(model: CoCa, args: argparse.Namespace) -> dict[str, dict[int, Callable]]:
    """By what is varied and its size: what is timed."""
    device = model.heads.log_scale.device
    size = model.config.image.image_size

    def clips(batch_size: int, num_frames: int) -> torch.Tensor:
        return torch.randn(batch_size, num_frames, 3, size, size, device=device)

    memory, _ = model.pool(model.encode_frames(clips(BATCH_SIZE, 1)))

    def text(length: int) -> torch.Tensor:
        return torch.randint(1, model.config.text.vocab_size, (BATCH_SIZE, length), device=device)

    return {
        f"frames (video encoding, batch {BATCH_SIZE})": {
            num: partial(model.encode_video, clips(BATCH_SIZE, num)) for num in args.frames
        },
        f"batch size (video encoding, {NUM_FRAMES} frames)": {
            num: partial(model.encode_video, clips(num, NUM_FRAMES)) for num in args.batch_sizes
        },
        f"text tokens (logits, batch {BATCH_SIZE})": {
            num: partial(model.caption_logits, memory, text(num)) for num in args.text_lengths
        },
    }


def log_log_slope(seconds: dict[int, float]) -> float:
    """By least squares: 1 where time grows in proportion to the size."""
    return np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), deg=1)[0].item()


def _result(
    args: argparse.Namespace, curves: dict[str, dict[int, float]], slopes: dict[str, float]
) -> Result:
    rows = [["varied", "size", "time"]]
    for name, seconds in curves.items():
        rows += [[name, str(size), f"{1000 * each:.2f} ms"] for size, each in seconds.items()]
    return Result(
        subject=f"{args.model}, float32, forward",
        rows=rows,
        figures={"seconds": curves, "slopes": slopes},
        notes=[f"written: {args.plot}"] if args.plot is not None else [],
        last="log-log slopes: "
        + ", ".join(f"{name.partition(' (')[0]} {slope:.2f}" for name, slope in slopes.items()),
    )
