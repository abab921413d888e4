"""`coca-video interpolate`: a checkpoint between two others, say before and after fine-tuning."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from coca_video.checkpoint import Checkpoint, save_checkpoint
from coca_video.errors import InputError
from coca_video.interop.open_clip import flattened
from coca_video.loading import load


def main() -> None:
    args = _parser().parse_args()
    if not 0 <= args.share <= 1:
        raise InputError(f"--share {args.share:g}: must be in [0, 1]")
    if args.output.exists():
        raise InputError(f"{args.output}: exists")
    first, second = load(args.first), load(args.second)
    _check_alike(first, second)
    save_checkpoint(
        args.output,
        config=first.model.config,
        weights=interpolated(first.model.state_dict(), second.model.state_dict(), args.share),
        tokenizer=first.tokenizer,
        preprocessing=first.preprocessing,
        trained_on=list(dict.fromkeys(first.trained_on + second.trained_on)),
    )
    print(f"written: {args.output}: {1 - args.share:.0%} of {first.path}, {args.share:.0%} of {second.path}")


def interpolated(first: dict[str, Tensor], second: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """WiSE-FT (arXiv 2109.01903, section 3): weights (1 - share) x first + share x second.

    Statistics of batch norms are mixed alike; counts are the second's.
    """
    return {
        name: x.lerp(second[name], share) if x.is_floating_point() else second[name]
        for name, x in first.items()
    }


def _check_alike(first: Checkpoint, second: Checkpoint) -> None:
    """Weights can be mixed only where each has the same meaning in both."""
    for checkpoint in (first, second):
        if checkpoint.task is not None:
            raise InputError(
                f"{checkpoint.path}: has a head for {checkpoint.task['name']}, which would be lost"
            )
    ours, theirs = _settings(first), _settings(second)
    for key in [*ours, *(theirs.keys() - ours.keys())]:
        if ours.get(key) != theirs.get(key):
            difference = f"its {key} is {theirs.get(key)}, that of {first.path} is {ours.get(key)}"
            raise InputError(f"{second.path}: is another model: {difference}")
    if first.tokenizer.to_json() != second.tokenizer.to_json():
        raise InputError(f"{second.path}: has another tokenizer than {first.path}")


def _settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """Of the model and its preprocessing, by dotted keys."""
    settings = {"model": checkpoint.model.config, "preprocessing": checkpoint.preprocessing}
    return flattened(json.loads(json.dumps(settings, default=asdict)))  # enums become their values


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Writes a checkpoint between two others of one model.")
    source = "a checkpoint or run: what fine-tuning began with, say"
    parser.add_argument("first", metavar="FIRST", help=source)
    parser.add_argument("second", metavar="SECOND", help="another one of the same model: what it ended with")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="a new checkpoint's folder")
    share = "of the second, from 0 to 1; default: %(default)s"
    parser.add_argument("--share", type=float, default=0.5, metavar="SHARE", help=share)
    return parser
