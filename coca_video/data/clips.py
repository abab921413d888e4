"""Clips of a long video: the only module that imports pytorchvideo."""

from pytorchvideo.data.clip_sampling import ConstantClipsPerVideoSampler


def clip_spans(duration: float, *, clip_seconds: float, num_clips: int) -> list[tuple[float, float]]:
    """`(start, end)` in seconds of `num_clips` clips spread over a video: the views of an evaluation.

        |--0--|.....|--1--|.....|--2--|.....    the starts divide what is left beside one clip

    A video shorter than a clip gives itself, `num_clips` times. Starts are `k / num_clips` of
    `duration - clip_seconds`, the multi-view protocol of SlowFast (arXiv:1812.03982).
    """
    if min(duration, clip_seconds) <= 0 or num_clips < 1:
        raise ValueError(
            "expected seconds above 0 and at least 1 clip, got "
            f"duration={duration}, clip_seconds={clip_seconds}, num_clips={num_clips}"
        )
    next_clip = ConstantClipsPerVideoSampler(clip_seconds, num_clips)
    clips = [next_clip(0, duration, {}) for _ in range(num_clips)]
    return [(float(clip.clip_start_sec), min(float(clip.clip_end_sec), duration)) for clip in clips]
