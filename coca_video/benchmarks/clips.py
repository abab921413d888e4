"""Video files to read: moving texture, so that an encoder has real work to do and a decoder too."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from coca_video.errors import InputError

FPS = 30


class Format(NamedTuple):
    suffix: str
    encoder: str  # as ffmpeg names it
    options: dict[str, str] = {}  # what differs from the encoder's own defaults


# x264's defaults have B-frames, and a keyframe every 250; the slow encoders are told to hurry.
FORMATS = {
    "H.264 mp4": Format(".mp4", "libx264"),
    "HEVC mp4": Format(".mp4", "libx265", {"preset": "ultrafast", "x265-params": "log-level=none"}),
    "VP9 webm": Format(".webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "b": "2M"}),
    "MPEG-4 avi": Format(".avi", "mpeg4", {"b": "8M"}),
}


def can_write(kind: Format) -> bool:
    """Whether this PyAV holds the encoder."""
    return kind.encoder in av.codecs_available


def write_clip(path: Path, kind: Format, *, seconds: int, height: int, seed: int = 0) -> None:
    """A video of `seconds` at 30 frames a second, 16 : 9, of an even height (pixels)."""
    if height % 2:
        raise InputError(f"--height {height}: video needs an even number of pixels")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(kind.encoder, rate=FPS, options=kind.options)
        stream.height, stream.width, stream.pix_fmt = height, 2 * round(height * 8 / 9), "yuv420p"
        stream.codec_context.time_base = Fraction(1, FPS)
        for picture in moving_texture(seconds * FPS, height=height, width=stream.width, seed=seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def moving_texture(num_frames: int, *, height: int, width: int, seed: int) -> Iterator[np.ndarray]:
    """Pictures 'h w c' (uint8): coarse and fine noise that drift apart, over a gradient."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 120, (height // 16 + 1, width // 16 + 1, 3)).repeat(16, 0).repeat(16, 1)
    coarse = coarse[:height, :width].astype(np.uint8)
    fine = rng.integers(0, 40, (height, width, 3)).astype(np.uint8)
    gradient = np.linspace(0, 90, width).astype(np.uint8)[None, :, None]
    for i in range(num_frames):
        yield np.roll(coarse, (i, 3 * i), (0, 1)) + np.roll(fine, -2 * i, 1) + gradient
