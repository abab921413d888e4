"""`tools/benchmark.py`: speed and memory, beside a peer and what the machine can do at most."""

import argparse
import json
import sys
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType

import torch

from coca_video.benchmarks import machine
from coca_video.benchmarks.report import Result, as_text
from coca_video.cli import pick_device
from coca_video.errors import InputError
from coca_video.files import write_whole

# Modules of coca_video/benchmarks, each with `add_arguments(parser)` and `run(args, device) -> Result`. Only
# the one called is imported: the processes that memory is measured in hold nothing of the others.
BENCHMARKS = {
    "generate": "captions: tokens a second, beside open_clip's generate",
    "train_step": "forward and backward: samples a second and memory, beside open_clip's CoCa",
    "caption_loss": "time and memory, beside logits and cross-entropy",
    "contrastive_loss": "time and memory, beside cross-entropies over the matrix",
    "attention": "the backends of attention beside one another",
    "video_encode": "files to embeddings: clips a second, beside a loop around open_clip",
    "decode": "some frames of a file: milliseconds, beside PyAV, decord and torchcodec",
    "stream": "video as it arrives: memory and time a frame by the number of frames",
    "mfu": "the share of the machine's ceiling that is used",
    "loading": "training over shards: waiting for data, samples a second and memory of the loader",
    "scaling": "slopes of time by frames, batch size and text length",
}


def main() -> None:
    args = parse(sys.argv[1:])
    _check_positive(args)
    torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    result = benchmark(args.benchmark).run(args, device)
    if args.device == "auto" and device.type == "cpu":
        result.notes.append("no GPU was at hand: these are a CPU's figures")
    described = machine.describe(device)
    if args.output is not None:
        _write(args, described, result)
        result.notes.append(f"written: {args.output}")
    print(as_text(result, described))


def benchmark(name: str) -> ModuleType:
    return resolve_name(f"coca_video.benchmarks.{name}")


def _write(args: argparse.Namespace, described: dict, result: Result) -> None:
    settings = {key: value for key, value in vars(args).items() if key not in ("output", "benchmark")}
    content = {"benchmark": args.benchmark, "settings": settings, "machine": described, **result.figures}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(args.output, json.dumps(content, indent=1, default=str) + "\n")


def _check_positive(args: argparse.Namespace) -> None:
    """Every whole number is a size or a count; a switch is no number."""
    for name, value in vars(args).items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int) and not isinstance(number, bool) and number < 1:
                raise InputError(f"--{name.replace('_', '-')} {number}: at least 1 is needed")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measures speed and memory as ratios, both sides in one run."
    )
    benchmarks = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    for name, what in BENCHMARKS.items():
        options = benchmarks.add_parser(name, help=what)
        if [name] == arguments[:1]:
            benchmark(name).add_arguments(options)
            _add_common(options)
    return parser.parse_args(arguments)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=int, default=3, help="of which the median; default: %(default)s")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="default: cuda where there is one")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also as JSON")
