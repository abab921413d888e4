"""Video as it arrives, one frame at a time: peak memory and time a frame by the number of frames."""

import argparse
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import torch

from coca_video.benchmarks.measure import Measured, compare_processes
from coca_video.benchmarks.report import MB, Result
from coca_video.cli import load_option
from coca_video.models.coca import CoCa, CoCaConfig
from coca_video.models.streaming import VideoStream


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="tiny", help="a preset of configs/model; default: %(default)s")
    parser.add_argument(
        "--frames", type=int, nargs="+", default=[10, 10000], help="how many; default: %(default)s"
    )


def run(args: argparse.Namespace, device: torch.device) -> Result:
    config = load_option(CoCaConfig, "model", args.model)
    sides = {str(num): partial(prepare, config, num, device) for num in args.frames}
    measured = compare_processes(sides, repeats=args.repeats, device=device, warm_up=False)
    return _result(args, measured)


def prepare(config: CoCaConfig, num_frames: int, device: torch.device) -> Callable[[], float]:
    """What reads the frames, warmed up by two; it returns the sum of the embedding."""
    torch.manual_seed(0)
    model = CoCa(config).eval().to(device)
    size = config.image.image_size
    frames = torch.randn(8, 1, 1, 3, size, size, device=device)  # again and again: a long video takes no room

    @torch.inference_mode()
    def read(num: int = num_frames) -> float:
        stream = VideoStream(model, batch_size=1)
        for i in range(num):
            stream.add(frames[i % len(frames)])
        _, embedding = stream.pooled()
        return embedding.sum().item()

    read(2)
    return read


def _result(args: argparse.Namespace, measured: dict[str, Measured]) -> Result:
    rows = [["frames", "ms a frame", "peak memory", "above the model"]]
    per_frame = {num: side.seconds / int(num) for num, side in measured.items()}
    for num, side in measured.items():
        memory = [f"{side.peak / MB:.1f} MB", f"{side.above_inputs / MB:.2f} MB"]
        rows.append([num, f"{1000 * per_frame[num]:.3f}", *memory])
    few, many = str(min(args.frames)), str(max(args.frames))
    ratios = {
        "peak": measured[many].peak / measured[few].peak,
        "seconds_a_frame": per_frame[many] / per_frame[few],
    }
    return Result(
        subject=f"{args.model}, one video, one frame at a time, float32",
        rows=rows,
        figures={
            "sides": {num: asdict(side) for num, side in measured.items()},
            "seconds_a_frame": per_frame,
            "ratios": ratios,
        },
        last=f"{many} frames / {few}: peak memory {ratios['peak']:.3f}, "
        f"time a frame {ratios['seconds_a_frame']:.3f}",
    )
