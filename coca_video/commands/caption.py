"""`tools/caption.py`: what a video shows, as a whole and frame by frame."""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from coca_video.checkpoint import Checkpoint, load_checkpoint, saved_checkpoints
from coca_video.cli import pick_device
from coca_video.data.sampling import uniform
from coca_video.data.subtitles import Cue, to_srt, to_webvtt
from coca_video.data.video import VideoReader
from coca_video.errors import InputError
from coca_video.evaluation.captioning import NUM_BEAMS, write_captions
from coca_video.files import write_whole

DEFAULT_RUNS = ("runs/emoji/video", "runs/emoji/image")  # where `make demo` leaves its models


@dataclass
class VideoCaptions:
    path: Path
    clip: Cue  # of the whole video
    frames: list[Cue]  # each from the start to the end of the stretch that its frame stands for
    times: list[float]  # seconds at which the frames appear


def main() -> None:
    args = _parser().parse_args()
    _check(args)
    device = pick_device(args.device)
    checkpoint = load_checkpoint(args.checkpoint or _default_run())
    checkpoint.model.to(device)
    # Every video is captioned before anything is written: a bad file leaves nothing half-done.
    settings = {"num_frames": args.num_frames, "num_beams": args.num_beams, "device": device}
    written = [caption_video(checkpoint, path, **settings) for path in args.videos]
    suffix, to_text = FORMATS[args.format]
    for captions in written:
        if args.output is None:
            sys.stdout.write(to_text(captions))
        else:
            args.output.mkdir(parents=True, exist_ok=True)
            write_whole(args.output / f"{captions.path.name}.{suffix}", to_text(captions))


@torch.inference_mode()
def caption_video(
    checkpoint: Checkpoint, path: Path, *, num_frames: int, num_beams: int, device: torch.device
) -> VideoCaptions:
    """One caption from all sampled frames together, and one from each frame alone."""
    reader = VideoReader(path)
    indices = sorted(set(uniform(len(reader), num_samples=num_frames)))
    frames = reader.frames(indices)
    frames = checkpoint.preprocessing.resized(frames, size=checkpoint.model.config.image.image_size)
    pixels = checkpoint.preprocessing.normalised(frames.to(device))
    tokens = checkpoint.model.encode_frames(pixels.unsqueeze(0))
    together, of_all = checkpoint.model.pool(tokens)
    alone, of_each = checkpoint.model.pool(tokens.transpose(0, 1))
    texts = write_captions(
        checkpoint,
        torch.cat([together, alone]),
        torch.cat([of_all, of_each]),
        device=device,
        num_beams=num_beams,
    )
    edges = [reader.duration * i / len(indices) for i in range(len(indices) + 1)]
    return VideoCaptions(
        path=path,
        clip=Cue(0.0, reader.duration, texts[0]),
        frames=[Cue(*span, text) for *span, text in zip(edges, edges[1:], texts[1:])],
        times=reader.timestamps(indices),
    )


def _as_text(captions: VideoCaptions) -> str:
    lines = [f"{captions.path}: {captions.clip.text}"]
    lines += [f"{time:10.2f} s  {cue.text}" for time, cue in zip(captions.times, captions.frames)]
    return "\n".join(lines) + "\n"


def _as_jsonl(captions: VideoCaptions) -> str:
    """The clip's line first, then one line a frame with its time; seconds."""
    clip = {"video": str(captions.path), "start": 0.0, "end": captions.clip.end, "text": captions.clip.text}
    frames = [
        {"video": str(captions.path), "time": time, "start": cue.start, "end": cue.end, "text": cue.text}
        for time, cue in zip(captions.times, captions.frames)
    ]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in [clip, *frames])


# format -> (the file's ending, how it is written); in subtitles the clip's cue spans the whole video.
FORMATS = {
    "text": ("txt", _as_text),
    "jsonl": ("jsonl", _as_jsonl),
    "srt": ("srt", lambda captions: to_srt([captions.clip, *captions.frames])),
    "webvtt": ("vtt", lambda captions: to_webvtt([captions.clip, *captions.frames])),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Captions a video and each of its sampled frames.")
    parser.add_argument("videos", nargs="+", type=Path, metavar="VIDEO")
    default = " or ".join(DEFAULT_RUNS)
    parser.add_argument("--checkpoint", help=f"a checkpoint's or a run's folder; default: {default}")
    parser.add_argument("--format", choices=sorted(FORMATS), default="text")
    parser.add_argument("--num-frames", type=int, default=8, help="frames sampled evenly over the video")
    parser.add_argument(
        "--num-beams", type=int, default=NUM_BEAMS, help="captions to choose from; 1 = greedy"
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="a file for each video; default: print")
    parser.add_argument("--device", default="auto")
    return parser


def _check(args: argparse.Namespace) -> None:
    for name in ("num_frames", "num_beams"):
        if getattr(args, name) < 1:
            option = name.replace("_", "-")
            raise InputError(f"--{option} {getattr(args, name)}: at least 1 is needed")
    if args.output is None and len(args.videos) > 1 and args.format in ("srt", "webvtt"):
        hint = f"holds one video, got {len(args.videos)}; give --output FOLDER"
        raise InputError(f"--format {args.format}: {hint}")
    names = [path.name for path in args.videos]
    if args.output is not None and len(set(names)) < len(names):
        raise InputError(f"--output {args.output}: two videos are named {max(names, key=names.count)}")


def _default_run() -> str:
    for run in DEFAULT_RUNS:
        if saved_checkpoints(Path(run)):
            return run
    hint = "run `make demo`, or give --checkpoint FOLDER"
    raise InputError(f"no checkpoint in {' or '.join(DEFAULT_RUNS)}: {hint}")
