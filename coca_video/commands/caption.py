"""`tools/caption.py`: what a video shows, as a whole and frame by frame."""

import argparse
import json
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor

from coca_video.checkpoint import Checkpoint, saved_checkpoints
from coca_video.cli import pick_device
from coca_video.data.sampling import uniform
from coca_video.data.subtitles import Cue, to_srt, to_webvtt
from coca_video.data.video import VideoReader
from coca_video.errors import InputError
from coca_video.evaluation.attention_picture import attention_picture
from coca_video.evaluation.captioning import Caption, DecodingConfig, write_captions
from coca_video.evaluation.embedding import encode_alone
from coca_video.files import write_whole
from coca_video.loading import load
from coca_video.models.attention_maps import attention_maps
from coca_video.models.decoding import packed_decoders
from coca_video.models.text_decoder import Memory

DEFAULT_RUNS = ("runs/emoji/video", "runs/emoji/image")  # where `make demo` leaves its models


@dataclass
class VideoCaptions:
    path: Path
    duration: float  # seconds
    clip: list[Caption]  # of the whole video, best first
    frames: list[list[Caption]]  # of each sampled frame alone, best first
    times: list[float]  # seconds at which the frames appear
    attention: Image | None = None  # where the model looked for the best caption of the clip

    def cues(self) -> list[Cue]:
        """The best captions: the clip's over the whole video, each frame's over the stretch it stands for."""
        num = len(self.frames)
        edges = [self.duration * i / num for i in range(num + 1)]
        frames = [Cue(*span, best[0].text) for *span, best in zip(edges, edges[1:], self.frames)]
        return [Cue(0.0, self.duration, self.clip[0].text), *frames]


def main() -> None:
    args = _parser().parse_args()
    decoding = _decoding(args)
    _check(args)
    device = pick_device(args.device)
    checkpoint = load(args.checkpoint or _default_run())
    checkpoint.model.to(device)
    checkpoint.model.image_encoder.merged_per_block = args.merged_per_block
    # Every video is captioned before anything is written: a bad file leaves nothing half-done.
    settings = {"num_frames": args.num_frames, "decoding": decoding, "device": device}
    draws = {"with_attention": args.attention is not None}
    with packed_decoders(checkpoint.model):
        written = [caption_video(checkpoint, path, **settings, **draws) for path in args.videos]
    suffix, to_text = FORMATS[args.format]
    for captions in written:
        if args.output is None:
            sys.stdout.write(to_text(captions))
        else:
            args.output.mkdir(parents=True, exist_ok=True)
            write_whole(args.output / f"{captions.path.name}.{suffix}", to_text(captions))
        if captions.attention is not None:
            args.attention.mkdir(parents=True, exist_ok=True)
            captions.attention.save(args.attention / f"{captions.path.name}.png")


@torch.inference_mode()
def caption_video(
    checkpoint: Checkpoint,
    path: Path,
    *,
    num_frames: int,
    decoding: DecodingConfig,
    device: torch.device,
    with_attention: bool = False,
) -> VideoCaptions:
    """Captions from all sampled frames together, and from each frame alone."""
    reader = VideoReader(path, num_threads=torch.get_num_threads())
    indices = sorted(set(uniform(len(reader), num_samples=num_frames)))
    frames = reader.frames(indices)
    frames = checkpoint.preprocessing.resized(frames, size=checkpoint.model.config.image.image_size)
    pixels = checkpoint.preprocessing.normalised(frames.to(device)).unsqueeze(0)
    memory, embeddings = _together_and_alone(checkpoint, pixels)
    clip, *each = write_captions(checkpoint, memory, embeddings, device=device, decoding=decoding)
    times = reader.timestamps(indices)
    picture = _attention(checkpoint, clip[0], frames, pixels, times) if with_attention else None
    return VideoCaptions(path, reader.duration, clip, each, times, picture)


def _together_and_alone(checkpoint: Checkpoint, pixels: Tensor) -> tuple[Memory, Tensor]:
    """Normalised '1 t c h w' -> memories and embeddings of the clip and then of each frame as a picture."""
    model = checkpoint.model
    tokens = model.encode_frames(pixels)
    all_real = torch.ones(pixels.shape[:2], dtype=torch.bool, device=pixels.device)
    together, of_all = model.pool(tokens)
    alone, of_each = model.pool(encode_alone(model, pixels, all_real, tokens=tokens).transpose(0, 1))
    return Memory.cat([together, alone]), torch.cat([of_all, of_each])


def _attention(
    checkpoint: Checkpoint, caption: Caption, frames: Tensor, pixels: Tensor, times: list[float]
) -> Image:
    """A row for the clip's embedding, one for the caption and one for each of its tokens."""
    tokenizer = checkpoint.tokenizer
    length = caption.ids.index(tokenizer.end) + 1 if tokenizer.end in caption.ids else len(caption.ids)
    ids = torch.tensor([caption.ids[:length]], device=pixels.device)
    is_read = torch.ones_like(ids, dtype=torch.bool)
    is_read[:, -1] = False  # nothing follows the last one
    maps = attention_maps(checkpoint.model, pixels, ids, is_read)
    words = [tokenizer.decode([token]) or "(end)" for token in caption.ids[1:length]]
    rows = [("embedding", maps.embedding[0]), ("caption", maps.caption(is_read)[0])]
    rows += zip(words, maps.tokens[0])
    return attention_picture(frames, [(label, row.cpu()) for label, row in rows], times=times)


def _as_text(captions: VideoCaptions) -> str:
    first, *others = captions.clip
    lines = [f"{captions.path}: {first.text}", *(f"{'or':>12}  {other.text}" for other in others)]
    for time, (best, *others) in zip(captions.times, captions.frames):
        lines += [f"{time:10.2f} s  {best.text}", *(f"{'or':>12}  {other.text}" for other in others)]
    return "\n".join(lines) + "\n"


def _as_jsonl(captions: VideoCaptions) -> str:
    """The clip's line first, then one line a frame with its time; seconds."""
    lines = []
    for i, (cue, ranked) in enumerate(zip(captions.cues(), [captions.clip, *captions.frames])):
        line = {"video": str(captions.path), "start": cue.start, "end": cue.end, "text": cue.text}
        if i:
            line["time"] = captions.times[i - 1]
        lines.append(line | {"captions": [asdict(caption) for caption in ranked]})
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


# format -> (the file's ending, how it is written); in subtitles the clip's cue spans the whole video.
FORMATS = {
    "text": ("txt", _as_text),
    "jsonl": ("jsonl", _as_jsonl),
    "srt": ("srt", lambda captions: to_srt(captions.cues())),
    "webvtt": ("vtt", lambda captions: to_webvtt(captions.cues())),
}
HELP = {  # of the settings in DecodingConfig
    "mode": "greedy, beam or sample",
    "num_beams": "texts that beam search extends at a time",
    "num_captions": "captions of each clip and frame",
    "prompt": "what every caption begins with",
    "max_length": "most tokens of a caption, begin and end included; 0 = the model's context",
    "min_length": "fewest tokens of a caption",
    "length_penalty": "beam search: log-probabilities are divided by length ** this",
    "repetition_penalty": "above 1: tokens that were written become less likely",
    "no_repeat_ngram": "no sequence of so many tokens twice; 0 = off",
    "temperature": "sampling: below 1 sharpens",
    "top_k": "sampling: among so many of the likeliest tokens; 0 = all",
    "top_p": "sampling: among the likeliest tokens that together reach this probability",
    "seed": "sampling: the same seed writes the same captions",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Captions a video and each of its sampled frames.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("videos", nargs="+", type=Path, metavar="VIDEO")
    default = " or ".join(DEFAULT_RUNS)
    where = f"a checkpoint's or a run's folder, an open_clip file or a hub id; if not given: {default}"
    parser.add_argument("--checkpoint", help=where)
    parser.add_argument("--format", choices=sorted(FORMATS), default="text", help="of the captions")
    parser.add_argument("--num-frames", type=int, default=8, help="frames sampled evenly over the video")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="a file for each video; else they are printed"
    )
    drawing = "draws where the model looked, a PNG for each video"
    parser.add_argument("--attention", type=Path, metavar="FOLDER", help=drawing)
    merging = "patches that each block of the image encoder merges: faster, approximate"
    parser.add_argument("--merged-per-block", type=int, default=0, metavar="N", help=merging)
    parser.add_argument("--device", default="auto", help="cpu, cuda, ...; auto = cuda where there is one")
    group = parser.add_argument_group("how captions are written")
    for setting in fields(DecodingConfig):
        if setting.name in HELP:
            option = "--" + setting.name.replace("_", "-")
            group.add_argument(
                option, type=setting.type, default=setting.default, metavar="", help=HELP[setting.name]
            )
    likeliest = "the likeliest captions rather than those nearest to the clip's embedding"
    group.add_argument("--likeliest", action="store_true", help=likeliest)
    return parser


def _decoding(args: argparse.Namespace) -> DecodingConfig:
    try:
        return DecodingConfig(**{name: getattr(args, name) for name in HELP}, nearest=not args.likeliest)
    except ValueError as error:
        raise InputError(str(error)) from error


def _check(args: argparse.Namespace) -> None:
    if args.num_frames < 1:
        raise InputError(f"--num-frames {args.num_frames}: at least 1 is needed")
    if args.merged_per_block and args.attention is not None:
        reason = f"--attention {args.attention} shows every patch in its place"
        raise InputError(f"--merged-per-block {args.merged_per_block}: {reason}")
    if args.output is None and len(args.videos) > 1 and args.format in ("srt", "webvtt"):
        hint = f"holds one video, got {len(args.videos)}; give --output FOLDER"
        raise InputError(f"--format {args.format}: {hint}")
    names = [path.name for path in args.videos]
    for option in ("output", "attention"):
        folder = getattr(args, option)
        if folder is not None and len(set(names)) < len(names):
            raise InputError(f"--{option} {folder}: two videos are named {max(names, key=names.count)}")


def _default_run() -> str:
    for run in DEFAULT_RUNS:
        if saved_checkpoints(Path(run)):
            return run
    hint = "run `make demo`, or give --checkpoint FOLDER"
    raise InputError(f"no checkpoint in {' or '.join(DEFAULT_RUNS)}: {hint}")
