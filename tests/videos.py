"""Small real video files for the tests."""

import struct
from pathlib import Path

import av
import numpy as np


def colour(i: int) -> tuple[int, int, int]:
    """The colour of frame `i`: the base-4 digits of `i`, 70 apart, which coding cannot confuse."""
    return tuple(20 + 70 * (i // 4**digit % 4) for digit in range(3))


def coloured_frames(num_frames: int, *, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames `t h w c` (uint8), frame `i` all of `colour(i)`; different for up to 64 frames."""
    frames = np.empty((num_frames, height, width, 3), dtype=np.uint8)
    for i, frame in enumerate(frames):
        frame[:] = colour(i)
    return frames


def seen(frames: np.ndarray) -> list[int]:
    """Which of `coloured_frames` these `t c h w` frames are, read from their central pixel."""
    height, width = frames.shape[2:]
    digits = np.rint((np.asarray(frames)[:, :, height // 2, width // 2].astype(float) - 20) / 70)
    return [int(digits_of_frame @ [1, 4, 16]) for digits_of_frame in digits]


def save_video(
    path: Path,
    frames: np.ndarray,
    *,
    fps: int,
    codec: str = "libx264",
    faststart: bool = False,
    encoding: dict[str, str] | None = None,
) -> Path:
    """Write `frames` (`t h w c`, uint8, array or tensor, even sides) as yuv420p, a keyframe every 8.

    `encoding`: options of the codec that replace these. `faststart` puts the header of an mp4 before its
    pictures, as in files made for the web.
    """
    options = {"movflags": "+faststart"} if faststart else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=fps, options={"crf": "10", "g": "8"} | (encoding or {}))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in np.asarray(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def save_sound(path: Path) -> Path:
    """Write an mp4 that holds sound and no pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    return path


def cut_start(source: Path, path: Path, *, num_frames: int, fps: int) -> Path:
    """Hide the first `num_frames` frames of an mp4 without encoding it again, as `ffmpeg -ss -c copy`."""
    options = {"avoid_negative_ts": "disabled"}
    with av.open(str(source)) as old, av.open(str(path), "w", options=options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                shift = round(num_frames / fps / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                new.mux(packet)
    return path


def drop_first_packet(source: Path, path: Path) -> Path:
    """Leave out the first keyframe of a video, so that the frames up to the next cannot be decoded."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for i, packet in enumerate(old.demux(video=0)):
            if i > 0 and packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    return path


def turn_right(source: Path, path: Path, *, stored_height: int) -> Path:
    """Mark an mp4 to be shown a quarter turn clockwise, as a phone held upright does."""
    content = bytearray(source.read_bytes())
    matrix = content.index(b"tkhd") + 44  # ISO 14496-12, 8.3.2: nine 32-bit numbers
    one = 1 << 16
    turned = (0, one, 0, -one, 0, 0, stored_height * one, 0, 1 << 30)
    content[matrix : matrix + 36] = struct.pack(">9i", *turned)
    path.write_bytes(content)
    return path
