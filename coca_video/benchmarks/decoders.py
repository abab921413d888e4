"""Ways to read some frames of a video file, each with one thread: ours, and what else there is."""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

import av
import decord
import numpy as np

from coca_video.data.sampling import uniform
from coca_video.data.video import VideoReader

Read = Callable[
    [Path, int], np.ndarray
]  # a file and how many frames, spread evenly -> uint8 't h w c' or 't c h w'


def read_ours(path: Path, num_frames: int) -> np.ndarray:
    reader = VideoReader(path)
    return reader.frames(uniform(len(reader), num_samples=num_frames)).numpy()


def read_all_with_pyav(path: Path, num_frames: int) -> np.ndarray:
    """Decodes the whole file, as one must that does not seek; only the frames asked for become RGB."""
    frames = all_frames(path, num_threads=1)
    chosen = [frames[i] for i in uniform(len(frames), num_samples=num_frames)]
    return np.stack([frame.to_ndarray(format="rgb24") for frame in chosen])


def all_frames(path: Path, *, num_threads: int) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = num_threads
        return list(container.decode(video=0))


def read_with_decord(path: Path, num_frames: int) -> np.ndarray:
    reader = decord.VideoReader(str(path), num_threads=1)
    return reader.get_batch(uniform(len(reader), num_samples=num_frames)).asnumpy()


def read_with_torchcodec(path: Path, num_frames: int) -> np.ndarray:
    decoder = importlib.import_module("torchcodec.decoders").VideoDecoder(str(path), num_ffmpeg_threads=1)
    return decoder.get_frames_at(uniform(len(decoder), num_samples=num_frames)).data.numpy()


def why_no_torchcodec() -> str | None:
    """None where it can be used: it needs a whole ffmpeg beside it."""
    if importlib.util.find_spec("torchcodec") is None:
        return "not installed"
    try:
        importlib.import_module("torchcodec.decoders")
    except (ImportError, RuntimeError, OSError) as error:
        return f"does not load ({str(error).strip().splitlines()[0]})"
    return None
