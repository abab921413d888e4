"""What an evaluation looks at of a video: one clip or several, frames cropped in one or several places."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coca_video.data.clips import clip_spans
from coca_video.data.manifest import ClipRecord
from coca_video.data.pictures import is_picture, read_picture
from coca_video.data.sampling import Sampling, dense_clip, sample_frames, uniform
from coca_video.data.video import VideoReader
from coca_video.errors import InputError


@dataclass
class ViewsConfig:
    """How frames are chosen. A picture is a video of one frame, and has one clip of it."""

    num_frames: int = 8  # of a clip
    sampling: Sampling = Sampling.uniform
    stride: int = 1  # frames from one to the next, for dense sampling
    num_clips: int = 1  # of a video, see `clip_indices`
    num_crops: int = 1  # squares of a frame, evenly placed along its longer side

    def __post_init__(self) -> None:
        for name in ("num_frames", "stride", "num_clips", "num_crops"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.sampling is Sampling.segment_random:
            raise ValueError("sampling must be uniform or dense: an evaluation is not random")

    @property
    def num_views(self) -> int:
        return self.num_clips * self.num_crops

    def crop_positions(self) -> list[float]:
        """From 0, the left or upper end of the longer side, to 1; the middle for a single crop."""
        if self.num_crops == 1:
            return [0.5]
        return [crop / (self.num_crops - 1) for crop in range(self.num_crops)]


def clip_indices(num_frames: int, views: ViewsConfig) -> list[list[int]]:
    """The frames of each clip of a video of `num_frames`.

    uniform: clips take turns among num_clips times as many frames, so that each spans the whole video.

        0..1..2..0..1..2..     3 clips of 2 frames

    dense: the starts of the clips divide what is left beside one of them (SlowFast, arXiv:1812.03982); a
    single clip lies in the middle.
    """
    if views.sampling is Sampling.uniform:
        frames = uniform(num_frames, num_samples=views.num_frames * views.num_clips)
        return [frames[clip :: views.num_clips] for clip in range(views.num_clips)]
    settings = {"num_samples": views.num_frames, "stride": views.stride}
    if views.num_clips == 1:
        return [sample_frames(num_frames, sampling=views.sampling, **settings)]
    span = min(num_frames, views.num_frames * views.stride)
    spans = clip_spans(num_frames, clip_seconds=span, num_clips=views.num_clips)
    return [dense_clip(num_frames, start=int(start), **settings) for start, _ in spans]


def record_frames(
    record: ClipRecord, choose: Callable[[int], list[int]], *, shorter_side: int | None = None
) -> Tensor:
    """The frames that `choose` takes of the record's number of them: uint8 't c h w'.

    Frames outside the record's span do not count. shorter_side: see VideoReader; pictures keep their size.
    Raises InputError, naming the file, for one that cannot be read or has no frame within the span.
    """
    return timed_frames(record, lambda num_frames, seconds: choose(num_frames), shorter_side=shorter_side)


def timed_frames(
    record: ClipRecord, choose: Callable[[int, float], list[int]], *, shorter_side: int | None = None
) -> Tensor:
    """As `record_frames`; `choose` learns beside the number of frames how many seconds they last."""
    if is_picture(record.path):
        return read_picture(record.path)
    reader = VideoReader(record.path, shorter_side=shorter_side)
    within = reader.between(*record.span) if record.span else range(len(reader))
    if not within:
        raise InputError(
            f"{record.path}: has no frame in {record.span} seconds; it ends at {reader.duration:.2f}"
        )
    return reader.frames([within[i] for i in choose(len(within), len(within) / reader.fps)])


def record_origin(record: ClipRecord) -> dict[str, Any]:
    """All that `record_frames` depend on beside the choice of frames, in JSON's terms; nothing is decoded."""
    path, *second = [file.resolve() for file in record.files]
    origin = {"video": str(path)} | _state(path)
    origin |= {"span": record.span} if record.span else {}
    return origin | ({"second": {"video": str(second[0])} | _state(second[0])} if second else {})


def _state(path: Path) -> dict[str, int]:
    state = path.stat()
    return {"size": state.st_size, "mtime_ns": state.st_mtime_ns}


def record_views(
    record: ClipRecord,
    views: ViewsConfig,
    prepare: Callable[[Tensor, float], Tensor],
    *,
    shorter_side: int | None = None,
) -> list[Tensor]:
    """Every view 't ...' of a record: for each clip, each crop. Of a pair, both behind one another.

    prepare: frames uint8 't c h w' of any size and a crop's position -> 't ...', what the model wants.
    """
    of_each = [
        [prepare(*view) for view in views_of(partial(record_frames, each, shorter_side=shorter_side), views)]
        for each in record.singly
    ]
    return [torch.cat(view) if len(view) > 1 else view[0] for view in zip(*of_each)]


def views_of(
    read: Callable[[Callable[[int], list[int]]], Tensor], views: ViewsConfig
) -> list[tuple[Tensor, float]]:
    """For each clip, each crop: frames of any size, and the crop's position.

    read: frames 't c h w' that are chosen by their number; of a picture without asking.
    """
    counts: list[int] = []

    def choose(num_frames: int) -> list[int]:
        clips = clip_indices(num_frames, views)
        counts.extend(map(len, clips))
        return [index for clip in clips for index in clip]

    frames = read(choose)
    clips = frames.split(counts) if counts else [frames] * views.num_clips
    return [(clip, position) for clip in clips for position in views.crop_positions()]
