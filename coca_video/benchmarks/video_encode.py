"""Video files to embeddings: clips a second, beside open_clip in the loop that people write around it."""

import argparse
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from coca_video.benchmarks import peers
from coca_video.benchmarks.clips import FORMATS, write_clip
from coca_video.benchmarks.decoders import all_frames
from coca_video.benchmarks.measure import take_turns
from coca_video.benchmarks.report import Result
from coca_video.data.sampling import uniform
from coca_video.data.transforms import Preprocessing
from coca_video.data.video import VideoReader
from coca_video.models.adaptors import Adaptor, TemporalConfig
from coca_video.models.coca import CoCa

NUM_DIFFERENT = 2  # clips that are written; the others are copies of them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    peers.add_model(parser)
    parser.add_argument("--num-clips", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--seconds", type=int, default=10, help="of each clip; default: %(default)s")
    parser.add_argument("--num-frames", type=int, default=8, help="read of each clip; default: %(default)s")
    parser.add_argument("--height", type=int, default=360, help="pixels; default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=8, help="clips, ours; default: %(default)s")


@torch.inference_mode()
def run(args: argparse.Namespace, device: torch.device) -> Result:
    peer = peers.coca(args.model)
    # The mean over frames is what the loop does: both sides then give the same embeddings.
    model = peers.converted(peer, temporal=TemporalConfig(Adaptor.mean, num_positions=0)).to(device)
    peer.to(device)
    with tempfile.TemporaryDirectory() as folder:
        paths = make_clips(Path(folder), num_clips=args.num_clips, seconds=args.seconds, height=args.height)
        ours = partial(encode_ours, model, paths, args, device)
        theirs = partial(encode_theirs, peer, paths, args, device)
        sides: list[Callable] = [ours, theirs]
        seconds = dict(zip(("ours", "theirs"), take_turns(sides, repeats=args.repeats, device=device)))
        cosine = F.cosine_similarity(ours(), theirs()).min().item()
    return _result(args, seconds, cosine)


def make_clips(folder: Path, *, num_clips: int, seconds: int, height: int) -> list[Path]:
    paths = [folder / f"{i}.mp4" for i in range(num_clips)]
    for i, path in enumerate(paths):
        if i < NUM_DIFFERENT:
            write_clip(path, FORMATS["H.264 mp4"], seconds=seconds, height=height, seed=i)
        else:
            shutil.copyfile(paths[i % NUM_DIFFERENT], path)
    return paths


def encode_ours(model: CoCa, paths: list[Path], args: argparse.Namespace, device: torch.device) -> Tensor:
    """Embeddings 'b e': a batch of clips is read by threads, then encoded at once.

    Not side by side: on a CPU the two would take the cores from each other in the midst of a product.
    """
    preprocessing, size = Preprocessing(), model.config.image.image_size

    def read(path: Path) -> Tensor:
        reader = VideoReader(path)
        frames = reader.frames(uniform(len(reader), num_samples=args.num_frames))
        return preprocessing.resized(frames, size=size)

    embeddings = []
    with ThreadPoolExecutor(args.threads) as pool:
        for i in range(0, len(paths), args.batch_size):
            frames = torch.stack(list(pool.map(read, paths[i : i + args.batch_size]))).to(device)
            embeddings.append(model.encode_video(preprocessing.normalised(frames)))
    return torch.cat(embeddings)


def encode_theirs(peer: Any, paths: list[Path], args: argparse.Namespace, device: torch.device) -> Tensor:
    """Embeddings 'b e': file by file and frame by frame, all of a file's frames in memory."""
    transform = peers.open_clip().image_transform(peer.visual.image_size, is_train=False)
    embeddings = []
    for path in paths:
        pictures = [frame.to_ndarray(format="rgb24") for frame in all_frames(path, num_threads=args.threads)]
        chosen = uniform(len(pictures), num_samples=args.num_frames)
        inputs = [transform(Image.fromarray(pictures[i])).unsqueeze(0).to(device) for i in chosen]
        embeddings.append(torch.cat([peer.encode_image(pixels) for pixels in inputs]).mean(dim=0))
    return torch.stack(embeddings)


def _result(args: argparse.Namespace, seconds: dict[str, float], cosine: float) -> Result:
    rates = {side: args.num_clips / taken for side, taken in seconds.items()}
    ratio = rates["ours"] / rates["theirs"]
    rows = [["", "time", "clips/s"]]
    for name, side in (("ours", "ours"), ("open_clip, a frame at a time", "theirs")):
        rows.append([name, f"{seconds[side]:.2f}s", f"{rates[side]:.2f}"])
    clips = f"{args.num_clips} H.264 clips of {args.seconds} s, {args.height} pixels high"
    return Result(
        subject=f"{args.model}, {args.num_frames} frames of each of {clips}, float32",
        rows=rows,
        figures={
            "seconds": seconds,
            "clips_per_second": rates,
            "ratio": ratio,
            "smallest_cosine": cosine,
            "num_different_clips": min(NUM_DIFFERENT, args.num_clips),
        },
        notes=[
            f"{min(NUM_DIFFERENT, args.num_clips)} different clips, the others are copies of them",
            f"the embeddings' smallest cosine between both sides: {cosine:.4f}",
        ],
        last=f"clips a second, ours / open_clip's: {ratio:.2f}",
    )
