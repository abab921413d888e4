import pytest

from coca_video.data.clips import clip_spans


def test_clip_spans_divide_what_is_left_beside_one_clip():
    assert clip_spans(10, clip_seconds=4, num_clips=3) == [(0, 4), (2, 6), (4, 8)]
    assert clip_spans(60, clip_seconds=10, num_clips=1) == [(0, 10)]
    assert clip_spans(10.5, clip_seconds=0.5, num_clips=4) == [(0, 0.5), (2.5, 3), (5, 5.5), (7.5, 8)]


def test_a_short_video_is_its_own_clip():
    assert clip_spans(3, clip_seconds=4, num_clips=2) == [(0, 3), (0, 3)]


@pytest.mark.parametrize(
    "wrong", [{"duration": 0.0}, {"duration": -1.0}, {"clip_seconds": 0.0}, {"num_clips": 0}]
)
def test_clip_spans_names_what_is_wrong(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        clip_spans(**({"duration": 1.0, "clip_seconds": 1.0, "num_clips": 1} | wrong))
