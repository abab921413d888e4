"""Animated webp to mp4."""

import io
import os
import statistics
from collections.abc import Iterable
from pathlib import Path

import av
from PIL import Image

CLIP_SIZE = 128  # pixels


def is_animated(webp: bytes) -> bool:
    """Whether an encoded picture has more than one frame."""
    return Image.open(io.BytesIO(webp)).n_frames > 1


def convert_clip(webp: bytes, path: Path) -> None:
    """Write an animation as mp4 at its own pace, a constant rate from the median duration of a frame."""
    frames, durations = [], []
    with Image.open(io.BytesIO(webp)) as animation:
        for index in range(animation.n_frames):
            animation.seek(index)
            canvas = Image.new("RGB", animation.size, "white")
            canvas.paste(animation, mask=animation.convert("RGBA"))
            durations.append(animation.info["duration"])  # milliseconds
            frames.append(canvas.resize((CLIP_SIZE, CLIP_SIZE), Image.Resampling.BICUBIC))
    partial = path.with_name(path.name + ".part")
    _write_mp4(partial, frames, frame_rate=round(1000 / statistics.median(durations)))
    os.replace(partial, path)


def _write_mp4(path: Path, frames: Iterable[Image.Image], *, frame_rate: int) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=frame_rate, options={"preset": "veryfast", "crf": "18"})
        stream.width = stream.height = CLIP_SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # the cores are shared by clips
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
