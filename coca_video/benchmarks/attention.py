"""The backends of `attend`, forward and backward, in the shapes of a CoCa."""

import argparse
from functools import partial

import torch
from torch import Tensor

from coca_video.benchmarks.measure import take_turns
from coca_video.benchmarks.report import Result
from coca_video.ops.attention import Backend, attend

HEADS, HEAD_WIDTH = 12, 64
# Queries, keys, and whether causal.
CASES = {
    "a frame of ViT-L/14": (257, 257, False),
    "the caption pooler over 8 frames": (256, 8 * 256, False),
    "a text": (76, 76, True),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch-size", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")


def run(args: argparse.Namespace, device: torch.device) -> Result:
    backends = [Backend.naive, Backend.sdpa, *([Backend.xformers] if device.type == "cuda" else [])]
    dtype = getattr(torch, args.precision)
    seconds = {}
    for case, (num_queries, num_keys, causal) in CASES.items():
        sizes = [(args.batch_size, length, HEADS, HEAD_WIDTH) for length in (num_queries, num_keys, num_keys)]
        inputs = [torch.randn(size, device=device, dtype=dtype, requires_grad=True) for size in sizes]
        sides = [partial(_forward_backward, *inputs, causal, backend) for backend in backends]
        names = [backend.value for backend in backends]
        seconds[case] = dict(zip(names, take_turns(sides, repeats=args.repeats, device=device)))
    return _result(args, seconds)


def _forward_backward(q: Tensor, k: Tensor, v: Tensor, causal: bool, backend: Backend) -> None:
    out = attend(q, k, v, causal=causal, backend=backend)
    torch.autograd.grad(out.sum(), (q, k, v))


def _result(args: argparse.Namespace, seconds: dict[str, dict[str, float]]) -> Result:
    names = list(next(iter(seconds.values())))
    rows = [["", *names]]
    rows += [[case, *(f"{1e3 * each[name]:.1f} ms" for name in names)] for case, each in seconds.items()]
    ratios = {
        case: {name: each["naive"] / each[name] for name in names[1:]} for case, each in seconds.items()
    }
    faster = (
        ", ".join(f"{name} {ratio:.1f}" for name, ratio in each.items()) + f" ({case})"
        for case, each in ratios.items()
    )
    return Result(
        subject=f"attention, batch {args.batch_size}, {HEADS} heads of {HEAD_WIDTH}, {args.precision}, "
        "forward and backward",
        rows=rows,
        figures={"seconds": seconds, "ratios": ratios},
        last=f"times as fast as naive: {'; '.join(faster)}",
    )
