"""The contrastive loss of a large batch: time and memory, beside cross-entropies over the matrix."""

import argparse
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from coca_video import losses
from coca_video.benchmarks.loss_functions import compare_losses
from coca_video.benchmarks.report import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num-pairs", type=int, default=16384, help="default: %(default)s")
    parser.add_argument("--width", type=int, default=512, help="of the embeddings; default: %(default)s")


def run(args: argparse.Namespace, device: torch.device) -> Result:
    return compare_losses(
        losses.contrastive_loss,
        plain,
        partial(random_inputs, num_pairs=args.num_pairs, width=args.width),
        subject=f"{args.num_pairs} pairs of width {args.width}",
        repeats=args.repeats,
        device=device,
    )


def plain(video: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    similarity = scale * video @ text.T
    target = torch.arange(len(video), device=video.device)
    return (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2


def random_inputs(*, num_pairs: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Unit rows video and text 'b e', each text near its video as in a model that has learned; scale."""
    generator = torch.Generator().manual_seed(0)
    video, noise = (torch.randn(num_pairs, width, generator=generator) for _ in range(2))
    unit = partial(F.normalize, dim=-1)
    return unit(video), unit(video + 3 * noise), torch.tensor(1 / 0.07)
