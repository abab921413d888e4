"""Which frames of a video to read: integers in, integers out.

In the pictures each character is one frame, `|` parts segments, and `f` is a frame that is taken.
Every sampler returns `num_samples` indices in `[0, num_frames)` and raises ValueError, naming the
value, for a count or stride below 1.
"""

import random
from collections.abc import Callable
from enum import Enum
from functools import partial


def uniform(num_frames: int, *, num_samples: int) -> list[int]:
    """The middle of each of `num_samples` equal segments: always the same, for evaluation.

        |..f..|..f..|..f..|     15 frames, 3 samples: 2 7 12

    Of the two middles of an even segment the earlier is taken. A video of fewer frames than samples
    shows some of them more than once, in order.
    """
    _check_positive(num_frames=num_frames, num_samples=num_samples)
    # The middle of segment i lies at (2 i + 1) * num_frames / (2 * num_samples); this is the last
    # whole number before it.
    return [((2 * i + 1) * num_frames - 1) // (2 * num_samples) for i in range(num_samples)]


def segment_random(num_frames: int, *, num_samples: int, rng: random.Random) -> list[int]:
    """One random frame of each of `num_samples` equal segments (TSN, arXiv:1608.00859).

        |.f...|....f|f....|     15 frames, 3 samples: for instance 1 9 10

    Every frame can be drawn. A video of fewer frames than samples shows some of them more than once,
    in order.
    """
    _check_positive(num_frames=num_frames, num_samples=num_samples)
    edges = [i * num_frames // num_samples for i in range(num_samples + 1)]
    # max: a segment shorter than one frame still holds the frame it lies in.
    return [rng.randrange(low, max(high, low + 1)) for low, high in zip(edges, edges[1:])]


def dense_clip(
    num_frames: int, *, num_samples: int, stride: int, start: int, when_short: str = "repeat_last"
) -> list[int]:
    """A clip from frame `start` on: `num_samples` frames, `stride` apart.

        ..f..f..f..     11 frames, 3 samples, stride 3, start 2: 2 5 8

    `when_short`, a key of WHEN_SHORT, says what stands for the frames that lie past the end.
    """
    _check_positive(num_frames=num_frames, num_samples=num_samples, stride=stride)
    if not 0 <= start < num_frames:
        raise ValueError(f"start is {start}, expected a frame of the {num_frames} of the video")
    if when_short not in WHEN_SHORT:
        raise ValueError(f"when_short is {when_short!r}, expected one of {list(WHEN_SHORT)}")
    inside = list(range(start, num_frames, stride))[:num_samples]
    return inside if len(inside) == num_samples else WHEN_SHORT[when_short](inside, num_samples)


def dense_start(num_frames: int, *, num_samples: int, stride: int, rng: random.Random | None = None) -> int:
    """Where a dense clip begins: at random, or so that it lies in the middle if there is no `rng`.

        ..f..f..f..     11 frames, 3 samples, stride 3: 2 of the possible 0 to 4

    It is 0 if the clip does not fit the video.
    """
    _check_positive(num_frames=num_frames, num_samples=num_samples, stride=stride)
    last_start = max(0, num_frames - 1 - (num_samples - 1) * stride)
    return rng.randint(0, last_start) if rng else last_start // 2


def repeat_last(inside: list[int], num_samples: int) -> list[int]:
    """0 3 6 -> 0 3 6 6 6"""
    return inside + inside[-1:] * (num_samples - len(inside))


def wrap(inside: list[int], num_samples: int) -> list[int]:
    """0 3 6 -> 0 3 6 0 3"""
    return [inside[i % len(inside)] for i in range(num_samples)]


def error(inside: list[int], num_samples: int) -> list[int]:
    """0 3 6 -> ValueError"""
    raise ValueError(f"{num_samples} frames are wanted, the video ends after {len(inside)}: {inside}")


WHEN_SHORT: dict[str, Callable[[list[int], int], list[int]]] = {
    "repeat_last": repeat_last,
    "wrap": wrap,
    "error": error,
}


class Sampling(str, Enum):
    """How the frames of a clip are chosen."""

    uniform = "uniform"
    segment_random = "segment_random"
    dense = "dense"


def sample_frames(
    num_frames: int,
    *,
    num_samples: int,
    sampling: Sampling,
    rng: random.Random | None = None,
    stride: int = 1,
) -> list[int]:
    """`num_samples` frame indices in non-decreasing order, chosen by `sampling`.

    segment_random needs `rng`; dense begins at random with it and lies in the middle without; uniform
    ignores it. Only dense reads `stride`, in frames.
    """
    if sampling == Sampling.segment_random and rng is None:
        raise ValueError("sampling is segment_random, which needs an rng")
    samplers = {
        Sampling.uniform: uniform,
        Sampling.segment_random: partial(segment_random, rng=rng),
        Sampling.dense: partial(_dense, stride=stride, rng=rng),
    }
    return samplers[Sampling(sampling)](num_frames, num_samples=num_samples)


def _dense(num_frames: int, *, num_samples: int, stride: int, rng: random.Random | None) -> list[int]:
    start = dense_start(num_frames, num_samples=num_samples, stride=stride, rng=rng)
    return dense_clip(num_frames, num_samples=num_samples, stride=stride, start=start)


def _check_positive(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}, expected at least 1")
