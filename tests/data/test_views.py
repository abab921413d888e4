import pytest
import torch
from PIL import Image
from videos import coloured_frames, save_video, seen

from coca_video.data.manifest import ClipRecord
from coca_video.data.sampling import Sampling
from coca_video.data.views import ViewsConfig, clip_indices, record_frames, record_origin, record_views
from coca_video.errors import InputError


def whole(frames: torch.Tensor, position: float) -> torch.Tensor:
    return frames


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        (ViewsConfig(num_frames=3), [[2, 7, 12]]),
        (ViewsConfig(num_frames=2, num_clips=3), [[1, 8], [3, 11], [6, 13]]),
        (ViewsConfig(num_frames=3, sampling=Sampling.dense, stride=2), [[5, 7, 9]]),
        (
            ViewsConfig(num_frames=3, sampling=Sampling.dense, stride=2, num_clips=3),
            [[0, 2, 4], [3, 5, 7], [6, 8, 10]],
        ),
        (
            ViewsConfig(num_frames=9, sampling=Sampling.dense, stride=2, num_clips=2),
            [[*range(0, 15, 2), 14]] * 2,
        ),
    ],
)
def test_clips_of_a_video_of_15_frames(views, expected):
    assert clip_indices(15, views) == expected


def test_uniform_clips_share_out_the_frames():
    clips = clip_indices(100, ViewsConfig(num_frames=8, num_clips=4))
    assert sorted(sum(clips, [])) == sum(clip_indices(100, ViewsConfig(num_frames=32)), [])
    assert all(clip == sorted(clip) for clip in clips)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_frames": 0}, "num_frames must be at least 1, got 0"),
        ({"num_crops": 0}, "num_crops must be at least 1, got 0"),
        ({"sampling": Sampling.segment_random}, "an evaluation is not random"),
    ],
)
def test_settings_check_themselves(wrong, message):
    with pytest.raises(ValueError, match=message):
        ViewsConfig(**wrong)


def test_the_frames_of_a_span(coloured_video):
    """40 frames, 10 a second; of 1 to 2 seconds the frames are 10 to 19."""
    record = ClipRecord(coloured_video, "a", span=[1.0, 2.0])
    counts = []
    frames = record_frames(record, lambda num: counts.append(num) or [0, num - 1])
    assert counts == [10] and seen(frames) == [10, 19]


def test_a_span_without_frames(coloured_video):
    record = ClipRecord(coloured_video, "a", span=[7.0, 8.0])
    with pytest.raises(
        InputError, match=r"coloured.mp4: has no frame in \[7.0, 8.0\] seconds; it ends at 4.00"
    ):
        record_frames(record, lambda num: [0])


def test_a_picture_is_a_video_of_one_frame(tmp_path):
    path = tmp_path / "a.jpeg"
    Image.new("RGB", (6, 4), "red").save(path)
    frames = record_frames(ClipRecord(path, "red"), lambda num: pytest.fail("no choice"))
    assert frames.shape == (1, 3, 4, 6)
    views = record_views(ClipRecord(path, "red"), ViewsConfig(num_frames=8, num_clips=2), whole)
    assert [tuple(view.shape) for view in views] == [(1, 3, 4, 6)] * 2


def test_a_pair_s_views_are_both_pictures(tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, colour in zip(paths, ("red", "blue")):
        Image.new("RGB", (6, 4), colour).save(path)
    pair, positions = ClipRecord(paths[0], "red or blue", second_path=paths[1]), []

    def prepare(frames: torch.Tensor, position: float) -> torch.Tensor:
        positions.append(position)
        return frames

    found = record_views(pair, ViewsConfig(num_crops=2), prepare)
    assert len(found) == 2 and positions == [0.0, 1.0] * 2
    for view in found:
        assert view.shape == (2, 3, 4, 6) and view[0, 0].all() and view[1, 2].all() and not view[1, 0].any()
    turned = ClipRecord(paths[1], "red or blue", second_path=paths[0])
    assert record_origin(pair)["second"]["video"] == record_origin(turned)["video"]
    assert "second" not in record_origin(pair.singly[0]) and pair.singly[1].path == paths[1]


def test_views_are_clips_then_crops(coloured_video):
    positions = []

    def prepare(frames: torch.Tensor, position: float) -> torch.Tensor:
        positions.append(position)
        return frames

    views = ViewsConfig(num_frames=4, num_clips=2, num_crops=3)
    found = record_views(ClipRecord(coloured_video, "a"), views, prepare)
    assert len(found) == views.num_views == 6 and positions == [0.0, 0.5, 1.0] * 2
    clips = clip_indices(40, views)
    assert [seen(view) for view in found] == [clips[0]] * 3 + [clips[1]] * 3


def test_dense_clips_of_a_real_video(tmp_path):
    path = save_video(tmp_path / "a.mp4", coloured_frames(20), fps=10)
    views = ViewsConfig(num_frames=4, sampling=Sampling.dense, stride=2, num_clips=2)
    found = record_views(ClipRecord(path, "a"), views, whole)
    assert [seen(view) for view in found] == [[0, 2, 4, 6], [6, 8, 10, 12]]
