"""The captioning loss from features and vocabulary: time and memory, beside logits and cross-entropy."""

import argparse
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from coca_video import losses
from coca_video.benchmarks.loss_functions import compare_losses
from coca_video.benchmarks.report import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num-tokens", type=int, default=4096, help="of all texts; default: %(default)s")
    parser.add_argument("--vocab-size", type=int, default=64000, help="default: %(default)s")
    parser.add_argument("--width", type=int, default=768, help="of the features; default: %(default)s")


def run(args: argparse.Namespace, device: torch.device) -> Result:
    sizes = {"num_tokens": args.num_tokens, "vocab_size": args.vocab_size, "width": args.width}
    return compare_losses(
        losses.caption_loss,
        plain,
        partial(random_inputs, **sizes),
        subject=f"{args.num_tokens} tokens of width {args.width}, vocabulary of {args.vocab_size}",
        repeats=args.repeats,
        device=device,
    )


def plain(features: Tensor, vocabulary: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(features @ vocabulary.T, targets)


def random_inputs(*, num_tokens: int, vocab_size: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """features 'n d', vocabulary 'v d', targets int 'n'; logits are about as spread as a trained model's."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(num_tokens, width, generator=generator)
    vocabulary = torch.randn(vocab_size, width, generator=generator).mul_(2 * width**-0.5)
    return features, vocabulary, torch.randint(0, vocab_size, (num_tokens,), generator=generator)
