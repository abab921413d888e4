"""A training step, forward and backward: samples a second and peak memory, beside open_clip's CoCa."""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from coca_video.benchmarks import peers
from coca_video.benchmarks.measure import Prepare, compare_processes
from coca_video.benchmarks.pair import Pair
from coca_video.benchmarks.report import Result
from coca_video.checkpoint import build_model
from coca_video.data.samples import Batch
from coca_video.data.transforms import Preprocessing
from coca_video.interop.files import read_tensors, write_tensors
from coca_video.models.coca import CoCa, CoCaConfig
from coca_video.training.step import LossConfig, compute_losses

# Tokens of sixteen captions like COCO's, begin and end counted: 12.8 on average, a very long one among them.
CAPTION_LENGTHS = [12, 11, 13, 10, 12, 14, 11, 12, 26, 11, 13, 12, 10, 15, 12, 11]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    peers.add_model(parser)
    parser.add_argument(
        "--batch-size", type=int, default=16, help="pictures with captions; default: %(default)s"
    )


def run(args: argparse.Namespace, device: torch.device) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        sides = both_sides(args.model, Path(folder), batch_size=args.batch_size, device=device)
        measured = compare_processes(sides, repeats=args.repeats, device=device)
    pair = Pair(ours=measured["ours"], theirs=measured["theirs"], peer="open_clip")
    return report(pair, model=args.model, batch_size=args.batch_size)


def report(pair: Pair, *, model: str, batch_size: int) -> Result:
    rates = [batch_size / side.seconds for side in (pair.ours, pair.theirs)]
    columns = ["samples/s", *(f"{rate:.2f}" for rate in rates)]
    lengths = CAPTION_LENGTHS[:batch_size]
    return Result(
        subject=f"training step of {model}, {batch_size} pictures with captions, float32",
        rows=[[*row, cell] for row, cell in zip(pair.rows(), columns)],
        figures={"pair": pair.figures(), "samples_per_second": dict(zip(("ours", "theirs"), rates))},
        notes=[
            f"captions of {min(lengths)} to {max(lengths)} tokens: ours cut to the longest, "
            "open_clip's padded to its context",
            "peak memory on a CPU is the whole process's, with the libraries that the side imports",
            f"the losses differ by {pair.loss_difference:.1e}",
        ],
        last=f"ours / open_clip's: samples a second {pair.speed_ratio:.2f}, "
        f"peak memory {pair.peak_ratio:.2f}",
    )


def both_sides(name: str, folder: Path, *, batch_size: int, device: torch.device) -> dict[str, Prepare]:
    """Both begin with the same weights, from files: neither process ever holds the other's model."""
    peer = peers.coca(name)
    model = peers.converted(peer)
    files = {side: folder / f"{side}.safetensors" for side in ("ours", "theirs")}
    write_tensors(files["theirs"], peer.state_dict())
    write_tensors(files["ours"], model.state_dict())
    config = model.config
    return {
        "ours": partial(_prepare_ours, config, files["ours"], batch_size, device),
        "theirs": partial(_prepare_theirs, name, config, files["theirs"], batch_size, device),
    }


def _prepare_ours(
    config: CoCaConfig, weights: Path, batch_size: int, device: torch.device
) -> Callable[[], float]:
    model = build_model(config, read_tensors(weights)[0], weights)[0].to(device).train()
    batch, frames = make_batch(config, batch_size=batch_size, device=device)
    return partial(our_step, model, frames, batch)


def our_step(model: CoCa, frames: Tensor, batch: Batch) -> float:
    """The gradients of all weights anew; returns the loss."""
    model.zero_grad(set_to_none=True)
    loss = compute_losses(model, frames, batch, LossConfig())["loss"]
    loss.backward()
    return loss.item()


def _prepare_theirs(
    name: str, config: CoCaConfig, weights: Path, batch_size: int, device: torch.device
) -> Callable[[], float]:
    model = peers.coca(name)
    model.load_state_dict(read_tensors(weights)[0])
    model.to(device).train()
    criterion = peers.open_clip().CoCaLoss(caption_loss_weight=2.0, clip_loss_weight=1.0, pad_id=0)
    batch, frames = make_batch(config, batch_size=batch_size, device=device)
    padding = config.text.context_length - batch.ids.shape[1]
    ids = torch.nn.functional.pad(batch.ids, (0, padding))

    def step() -> float:
        model.zero_grad(set_to_none=True)
        loss = sum(criterion(**model(frames[:, 0], ids)))
        loss.backward()
        return loss.item()

    return step


def make_batch(config: CoCaConfig, *, batch_size: int, device: torch.device) -> tuple[Batch, Tensor]:
    """Random pictures with texts of captions' lengths, cut to the longest; their frames also normalised."""
    generator = torch.Generator().manual_seed(0)
    size, context = config.image.image_size, config.text.context_length
    frames = torch.randint(0, 256, (batch_size, 1, 3, size, size), generator=generator, dtype=torch.uint8)
    lengths = [min(CAPTION_LENGTHS[i % len(CAPTION_LENGTHS)], context) for i in range(batch_size)]
    text_mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    ids = torch.randint(1, config.text.vocab_size, text_mask.shape, generator=generator) * text_mask
    batch = Batch(
        frames=frames,
        frame_mask=torch.ones(batch_size, 1, dtype=torch.bool),
        ids=ids,
        text_mask=text_mask,
        groups=torch.arange(batch_size),
        keys=[str(i) for i in range(batch_size)],
    ).to(device)
    return batch, Preprocessing().normalised(batch.frames)
