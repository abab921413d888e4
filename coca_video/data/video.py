"""Reading frames of a video file: the only module that imports decord or PyAV.

`VideoReader` inspects a file with PyAV, then hands it to one of three decoders:

- PyAV, which seeks and leaves out the frames that no other needs, for H.264 in mp4 and mov: the same pixels
  as decord's in less time (docs/performance.md);
- decord, which seeks, for the other codecs in mp4, mov, mkv, webm and avi;
- PyAV from the first frame on, slow and exact, for what decord gets wrong without a word: it shifts the
  frames of a video cut without re-encoding (hidden frames come first, or ones that need an earlier
  keyframe) and repeats the last one in place of the missing; it loses its way in the other containers
  and in avi with B-frames; and it cannot turn upright what a phone recorded sideways.

A reader belongs to the process that made it: decord's threads do not survive a fork.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch  # before decord: loaded after it, its matrix products crash where CUDA's NVBLAS is installed

# isort: split
import av
import decord
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from einops import rearrange

from coca_video.errors import InputError

MP4 = "mov,mp4,m4a,3gp,3g2,mj2"  # as ffmpeg names it
TIMELESS = "a bare stream that does not say when its frames appear"
PLAIN_CONTAINERS = {MP4, "matroska,webm", "avi"}
DECORD_ERRORS = (decord.DECORDError, decord.DECORDLimitReachedError)

decord.logging.set_level(decord.logging.QUIET)  # a damaged file is our one line, not pages of ffmpeg's
av.logging.set_level(av.logging.PANIC)


class _Decoder(Protocol):
    """What VideoReader needs: `starts[i]` is when frame i appears (seconds), `read` gives 't h w c'."""

    starts: list[float]
    fps: float

    def read(self, indices: Sequence[int]) -> np.ndarray: ...


class VideoReader:
    """Random access to the frames of one video file.

    `width` and `height` (pixels, both or neither) resize while decoding; so does `shorter_side`, which
    keeps the aspect ratio and never enlarges (`reduced_size`). Without them frames keep their size.
    `num_threads` decode; leave it at 1 inside data-loader workers.
    Raises InputError, naming the file, if it is missing, empty, cut short or not a video.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        width: int | None = None,
        height: int | None = None,
        shorter_side: int | None = None,
        num_threads: int = 1,
    ) -> None:
        if (width is None) != (height is None):
            raise ValueError(f"width and height come together, got width={width}, height={height}")
        if width is not None and shorter_side is not None:
            raise ValueError(f"shorter_side={shorter_side} and width={width} exclude each other")
        self.path = Path(path)
        _check_file(self.path)
        try:
            header = _inspect(self.path)
            if shorter_side is not None:
                width, height = reduced_size(header.width, header.height, shorter_side=shorter_side)
            options = {"width": width, "height": height, "num_threads": num_threads}
            self._decoder = _make_decoder(self.path, header=header, **options)
        except av.FFmpegError as error:
            raise InputError(f"{self.path}: cut short, damaged or not a video ({error.strerror})") from error

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._decoder.starts)

    @property
    def fps(self) -> float:
        """Average frames per second."""
        return self._decoder.fps

    @property
    def duration(self) -> float:
        """Seconds from time 0 to the end of the last frame."""
        return self._decoder.starts[-1] + 1 / self.fps

    def timestamps(self, indices: Sequence[int]) -> list[float]:
        """When each of these frames appears, in seconds."""
        self._check_indices(indices)
        return [self._decoder.starts[i] for i in indices]

    def between(self, start: float, end: float) -> range:
        """The frames that appear within [start, end), seconds."""
        return range(bisect_left(self._decoder.starts, start), bisect_left(self._decoder.starts, end))

    def frames(self, indices: Sequence[int]) -> torch.Tensor:
        """The frames at `indices` (any order, repeats allowed) as uint8 RGB `t c h w`.

        Raises ValueError for an index out of range and InputError for frames that cannot be decoded.
        """
        self._check_indices(indices)
        try:
            frames = self._decoder.read(indices)
        except (av.FFmpegError, *DECORD_ERRORS) as error:
            raise InputError(f"{self.path}: damaged, cannot decode frames {list(indices)}") from error
        return rearrange(torch.from_numpy(frames), "t h w c -> t c h w").contiguous()

    def _check_indices(self, indices: Sequence[int]) -> None:
        if len(indices) == 0:
            raise ValueError(f"{self.path}: no frame indices given")
        wrong = [i for i in indices if not 0 <= i < len(self)]
        if wrong:
            raise ValueError(f"{self.path}: frames {wrong} are not in a video of {len(self)} frames")


def reduced_size(width: int, height: int, *, shorter_side: int) -> tuple[int, int]:
    """(width, height) with this shorter side, the aspect ratio kept up to half a pixel; never enlarged."""
    scale = min(1, shorter_side / min(width, height))
    return round(width * scale), round(height * scale)


@dataclass(frozen=True)
class VideoFacts:
    """What a video file holds, every frame decoded, beside what its container promises."""

    num_frames: int
    reported_frames: int | None  # less those that an edit list hides; None: it gives no number
    seconds: float  # from the first frame to the end of the last
    reported_seconds: float | None
    width: int  # pixels, upright
    height: int
    codec: str  # as ffmpeg names it


def check_video(path: str | Path) -> VideoFacts:
    """Decodes a whole file, which takes as long as it takes: readers believe more than this.

    Raises InputError for what `VideoReader` refuses, and for a frame that its decoder finds damaged. Not all
    damage can be found: mkv and webm lose frames in the middle without a trace, and some pictures have no
    bits that would be wrong.
    """
    path, spans = Path(path), []
    _check_file(path)
    try:
        header = _inspect(path)
        with _open(path) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1
            stream.codec_context.options = {"err_detect": "explode"}
            spans.extend(_span(frame, stream, path) for frame in _sound_frames(container, stream, path))
            if not spans:
                raise InputError(f"{path}: damaged, not one of its frames can be decoded")
            start = min(begin for begin, _ in spans)
            return VideoFacts(
                num_frames=len(spans),
                reported_frames=_reported_frames(container, stream, path),
                seconds=max(end for _, end in spans) - start,
                reported_seconds=_reported_seconds(container, stream, start),
                width=header.width,
                height=header.height,
                codec=stream.codec_context.name,
            )
    except av.FFmpegError as error:
        where = f"after {len(spans)} frames" if spans else "cut short, or not a video"
        raise InputError(f"{path}: damaged, {where} ({error.strerror})") from error


def _sound_frames(container: InputContainer, stream: VideoStream, path: Path) -> Iterator[av.VideoFrame]:
    """All frames; an error in place of one that decoder or container mark as damaged."""
    for packet in container.demux(stream):
        for frame in packet.decode():
            if packet.is_corrupt or frame.is_corrupt:
                raise InputError(f"{path}: damaged about {frame.time} seconds")
            yield frame


def _span(frame: av.VideoFrame, stream: VideoStream, path: Path) -> tuple[float, float]:
    """When a frame appears and when the next one should."""
    rate = stream.average_rate or stream.guessed_rate
    if frame.time is None or not rate:
        raise InputError(f"{path}: {TIMELESS}")
    return frame.time, frame.time + float(frame.duration * frame.time_base if frame.duration else 1 / rate)


def _reported_frames(container: InputContainer, stream: VideoStream, path: Path) -> int | None:
    shown = sum(not sample.is_discard for sample in stream.index_entries)
    if container.format.name != MP4 or stream.frames <= shown:
        return stream.frames or None
    with _open(path, options={"ignore_editlist": "1"}) as whole:
        return stream.frames - (len(whole.streams.video[0].index_entries) - shown)


def _reported_seconds(container: InputContainer, stream: VideoStream, start: float) -> float | None:
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    # One number for all streams, and by custom from time 0 on.
    return None if container.duration is None else container.duration / av.time_base - start


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a video file")
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty (0 bytes), expected a video file")


def _make_decoder(path: Path, *, header: "_Header", **options: int | None) -> _Decoder:
    if header.is_skippable:
        decoder = _SkippingDecoder(path, **options)
        if _are_increasing(decoder.starts):
            return decoder
    if header.is_plain:
        with suppress(*DECORD_ERRORS, RuntimeError):
            decoder = _DecordDecoder(path, **options)
            decoder.read([0])  # some narrow pictures (16, 24, 48, 72 pixels) it opens but cannot read
            # Wrong times are how decord shows that it did not understand the order of the frames.
            if _are_increasing([-1.0, *decoder.starts, 1e9]):
                return decoder
    return _SequentialDecoder(path, **options)


@dataclass
class _Header:
    width: int  # pixels, upright
    height: int
    is_plain: bool  # whether decoders that seek can be trusted with this file
    is_skippable: bool  # whether moreover the frames that no other needs are known


def _inspect(path: Path) -> _Header:
    """What decides how to read a file; raises InputError for one that is cut short.

    Reads the header and the first frame only. Containers with a sample table (mp4, mov, avi) say where
    every frame lies, so a missing end shows at once. Those without (mkv, webm) promise no number of
    frames: such a file cut short is a shorter video.
    """
    size = path.stat().st_size
    with _open(path) as container:
        stream = _video_stream(container, path)
        samples = list(stream.index_entries)
        needed = max((sample.pos + sample.size for sample in samples), default=0)
        if size < needed:
            raise InputError(f"{path}: is cut short: {size} bytes, its frames need {needed}")
        first_frame = next(container.decode(stream), None)
        if first_frame is None:
            raise InputError(f"{path}: its video stream holds no frames")
        seconds = (container.duration or 0) / av.time_base
        is_plain = (
            container.format.name in PLAIN_CONTAINERS
            and first_frame.rotation == 0
            and not any(sample.is_discard for sample in samples)
            and (not samples or samples[0].is_keyframe)
            # decord allocates what the header promises, and no frame is smaller than a byte.
            and seconds * (stream.average_rate or 0) <= size
        )
        is_skippable = is_plain and container.format.name == MP4 and stream.codec_context.name == "h264"
        sides = first_frame.width, first_frame.height
        sides = sides[::-1] if _is_sideways(first_frame) else sides
        return _Header(*sides, is_plain=is_plain, is_skippable=is_skippable)


def _is_sideways(frame: av.VideoFrame) -> bool:
    return frame.rotation // 90 % 2 == 1


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    if not container.streams.video:
        found = ", ".join(stream.type for stream in container.streams) or "none"
        raise InputError(f"{path}: holds no video stream (streams: {found})")
    return container.streams.video[0]


def _are_increasing(values: Sequence[float]) -> bool:
    return all(earlier < later for earlier, later in zip(values, values[1:]))


def _open(path: Path, options: dict[str, str] | None = None) -> InputContainer:
    # A title in Latin-1 is no reason to fail.
    return av.open(str(path), options=options, metadata_errors="replace")


class _SkippingDecoder:
    """Decodes what the wanted frames need: from a fresh start on, without the frames that no other needs."""

    def __init__(self, path: Path, *, width: int | None, height: int | None, num_threads: int) -> None:
        self._path, self._size, self._num_threads = path, {"width": width, "height": height}, num_threads
        with _open(path) as container:
            stream = container.streams.video[0]
            packets = [packet for packet in container.demux(stream) if packet.pts is not None]
            self._places = sorted(packet.pts for packet in packets)  # in the stream's time base
            length_size = (stream.codec_context.extradata[4] & 3) + 1  # of a unit's length, in bytes
            fresh = (
                packet.pts for packet in packets if packet.is_keyframe and _is_fresh(packet, length_size)
            )
            self._fresh = sorted({self._places[0], *fresh})
            self.starts = [float(place * stream.time_base) for place in self._places]
            self.fps = float(stream.average_rate)

    def read(self, indices: Sequence[int]) -> np.ndarray:
        places = [self._places[i] for i in indices]
        by_start: dict[int, set[int]] = {}
        for place in sorted(set(places)):
            by_start.setdefault(self._fresh[bisect_right(self._fresh, place) - 1], set()).add(place)
        found: dict[int, np.ndarray] = {}
        with _open(self._path) as container:
            stream = container.streams.video[0]
            stream.thread_count = self._num_threads
            # An error where a picture is damaged, not one that is made up from its neighbours.
            stream.codec_context.options = {"err_detect": "explode"}
            for start, wanted in by_start.items():
                container.seek(start, stream=stream)
                for frame in _only(container, stream, wanted):
                    found[frame.pts] = frame.to_ndarray(format="rgb24", **self._size)
        return np.stack([found[place] for place in places])


def _is_fresh(packet: av.Packet, length_size: int) -> bool:
    """Whether no picture behind this one needs any before it: it holds an IDR slice (unit of type 5).

    Other keyframes only begin to refresh the picture. A packet is a row of units, each behind its length.
    """
    content, start = bytes(packet), length_size
    while start < len(content):
        if content[start] & 31 == 5:
            return True
        start += int.from_bytes(content[start - length_size : start], "big") + length_size
    return False


def _only(container: InputContainer, stream: VideoStream, wanted: set[int]) -> Iterator[av.VideoFrame]:
    """The frames shown at these times, from where the container stands on.

    Raises FFmpeg's error where one is missing.
    """
    missing = set(wanted)
    for packet in container.demux(stream):
        # The last, empty packet only asks for what is still under way.
        is_needed = packet.pts is None or packet.pts in wanted
        stream.codec_context.skip_frame = "DEFAULT" if is_needed else "NONREF"
        for frame in packet.decode():
            if frame.pts in missing:
                missing.remove(frame.pts)
                yield frame
        if not missing:
            return
    raise av.InvalidDataError(av.error.tag_to_code(b"INDA"), f"no frames at {sorted(missing)}")


class _DecordDecoder:
    def __init__(self, path: Path, *, width: int | None, height: int | None, num_threads: int) -> None:
        self._reader = decord.VideoReader(
            str(path),
            width=width or -1,
            height=height or -1,
            num_threads=num_threads,
            fault_tol=1e-6,  # a share of the frames: not one may be silently replaced by a neighbour
        )
        self.starts = self._reader.get_frame_timestamp(range(len(self._reader)))[:, 0].tolist()
        self.fps = self._reader.get_avg_fps()

    def read(self, indices: Sequence[int]) -> np.ndarray:
        frames = self._reader.get_batch(indices).asnumpy()
        self._reader.seek(0)  # decord reads ahead without limit until told otherwise
        return frames


class _SequentialDecoder:
    def __init__(self, path: Path, *, width: int | None, height: int | None, num_threads: int) -> None:
        self._path, self._width, self._height, self._num_threads = path, width, height, num_threads
        with _open(path) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate
            starts = [frame.time for frame in self._decode(container)]
        if not rate or None in starts:
            raise InputError(f"{path}: {TIMELESS}")
        self.fps = float(rate)
        self.starts = sorted(starts)  # avi hands out the right times in the order of coding

    def read(self, indices: Sequence[int]) -> np.ndarray:
        wanted, found = set(indices), {}
        with _open(self._path) as container:
            for i, frame in enumerate(self._decode(container)):
                if i in wanted:
                    found[i] = self._upright(frame)
                if len(found) == len(wanted):
                    break
        return np.stack([found[i] for i in indices])

    def _decode(self, container: InputContainer) -> Iterator[av.VideoFrame]:
        container.streams.video[0].thread_count = self._num_threads
        return container.decode(video=0)

    def _upright(self, frame: av.VideoFrame) -> np.ndarray:
        width, height = self._width, self._height
        if _is_sideways(frame):
            width, height = height, width
        stored = frame.to_ndarray(format="rgb24", width=width, height=height)
        return np.rot90(stored, frame.rotation // 90)
