"""How much of the machine's ceiling is used: the image encoder's forward pass and a training step."""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from coca_video.benchmarks.machine import matmul_gflops
from coca_video.benchmarks.measure import take_turns
from coca_video.benchmarks.report import Result
from coca_video.benchmarks.train_step import make_batch, our_step
from coca_video.cli import load_option
from coca_video.models.coca import CoCa, CoCaConfig
from coca_video.training.compute import ComputeConfig, Precision, autocast, prepare
from coca_video.training.step import LossConfig, compute_losses

BACKWARD = 2  # forward passes' worth: a gradient by the inputs and one by the weights


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", default="open_clip_l14", help="a preset of configs/model; default: %(default)s"
    )
    parser.add_argument("--batch-size", type=int, default=8, help="pictures; default: %(default)s")
    parser.add_argument("--precision", type=Precision, choices=[each.value for each in Precision])
    parser.add_argument("--compile", action="store_true", help="the blocks, by torch.compile")
    parser.set_defaults(precision=Precision.float32)


def run(args: argparse.Namespace, device: torch.device) -> Result:
    torch.manual_seed(0)
    config = load_option(CoCaConfig, "model", args.model)
    model = CoCa(config).train()
    batch, frames = make_batch(config, batch_size=args.batch_size, device=torch.device("cpu"))
    losses = partial(compute_losses, model, frames, batch, LossConfig())
    flops = {
        "encoder, forward": count_flops(partial(model.image_encoder, frames[:, 0])),
        "training step": (1 + BACKWARD) * count_flops(losses),
    }
    model, batch, frames = model.to(device), batch.to(device), frames.to(device)
    compute = ComputeConfig(precision=args.precision, compile=args.compile)
    prepare(model, compute)
    encode = torch.no_grad()(partial(model.image_encoder, frames[:, 0]))
    sides = [encode, partial(our_step, model, frames, batch)]
    with autocast(compute, device):
        seconds = dict(zip(flops, take_turns(sides, repeats=args.repeats, device=device)))
    dtype = getattr(torch, args.precision.value)
    return _result(args, flops, seconds, ceiling=matmul_gflops(device, dtype))


@torch.no_grad()
def count_flops(call: Callable) -> int:
    """Of one run on the CPU: its products of matrices, convolutions and attention.

    The counter sees attention only where it is composed of products. Causal attention counts in full.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        call()
    return counter.get_total_flops()


def _result(
    args: argparse.Namespace, flops: dict[str, int], seconds: dict[str, float], *, ceiling: float
) -> Result:
    gflops = {name: flops[name] / seconds[name] / 1e9 for name in flops}
    shares = {name: rate / ceiling for name, rate in gflops.items()}
    rows = [["", "GFLOP", "time", "GFLOPS", "of the ceiling"]]
    for name, rate in gflops.items():
        work = [f"{flops[name] / 1e9:.2f}", f"{seconds[name]:.3f}s"]
        rows.append([name, *work, f"{rate:.0f}", f"{shares[name]:.0%}"])
    return Result(
        subject=f"{args.model}, batch {args.batch_size}, {args.precision.value}"
        + (", compiled" if args.compile else ""),
        rows=rows,
        figures={"flops": flops, "seconds": seconds, "gflops": gflops, "shares": shares},
        notes=["FLOPs of a forward pass by torch's FlopCounterMode; a training step counts as three"],
        last="share of the matmul ceiling: "
        + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()),
    )
