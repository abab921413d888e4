import struct

import numpy as np
import pytest
import torch
from videos import (
    colour,
    coloured_frames,
    cut_start,
    drop_first_packet,
    save_sound,
    save_video,
    seen,
    turn_right,
)

from coca_video.data.transforms import Preprocessing, Resize
from coca_video.data.video import VideoReader, _SequentialDecoder, _SkippingDecoder, reduced_size
from coca_video.errors import InputError


def test_frames_are_those_asked_for(coloured_video):
    reader = VideoReader(coloured_video)
    assert seen(reader.frames(range(len(reader)))) == list(range(40))
    assert seen(reader.frames([39, 0, 17, 17, 3])) == [39, 0, 17, 17, 3]


def test_frames_are_uint8_rgb_in_t_c_h_w(coloured_video):
    frames = VideoReader(coloured_video).frames([6, 11])
    assert frames.dtype == torch.uint8 and frames.shape == (2, 3, 48, 64) and frames.is_contiguous()
    expected = torch.tensor([colour(6), colour(11)]).view(2, 3, 1, 1)
    assert (frames.int() - expected).abs().max() <= 8


def test_length_rate_and_times(coloured_video):
    reader = VideoReader(coloured_video)
    assert len(reader) == 40
    assert reader.fps == pytest.approx(10)
    assert reader.duration == pytest.approx(4)
    assert reader.timestamps([0, 1, 39]) == pytest.approx([0, 0.1, 3.9], abs=1e-6)


def test_resizes(coloured_video):
    frames = VideoReader(coloured_video, width=32, height=16).frames([5])
    assert frames.shape == (1, 3, 16, 32) and seen(frames) == [5]
    with pytest.raises(ValueError, match="width=32, height=None"):
        VideoReader(coloured_video, width=32)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("mkv", "libx264"), ("webm", "libvpx-vp9"), ("avi", "libx264"), ("avi", "mpeg4"), ("ts", "libx264")],
)
def test_other_containers(tmp_path, suffix, codec):
    path = save_video(tmp_path / f"video.{suffix}", coloured_frames(40), fps=10, codec=codec)
    reader = VideoReader(path)
    assert seen(reader.frames(range(len(reader)))) == list(range(40))
    assert seen(reader.frames([33, 0, 21])) == [33, 0, 21]
    assert np.diff(reader.timestamps(range(40))) == pytest.approx(0.1, abs=1e-3)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_one_frame(tmp_path, suffix):
    reader = VideoReader(save_video(tmp_path / f"one.{suffix}", coloured_frames(1), fps=10))
    assert len(reader) == 1 and reader.timestamps([0]) == [0] and seen(reader.frames([0, 0])) == [0, 0]


@pytest.mark.parametrize("num_hidden", [8, 11])  # on a keyframe, and between two
def test_frames_hidden_by_a_cut_are_not_counted(coloured_video, tmp_path, num_hidden):
    path = cut_start(coloured_video, tmp_path / "cut.mp4", num_frames=num_hidden, fps=10)
    reader = VideoReader(path)
    shown = list(range(num_hidden, 40))
    assert seen(reader.frames(range(len(reader)))) == shown
    assert seen(reader.frames([20, 2])) == [shown[20], shown[2]]
    assert reader.timestamps([0, 20]) == pytest.approx([0, 2], abs=1e-6)


def test_frames_before_the_first_keyframe_are_not_counted(coloured_video, tmp_path):
    reader = VideoReader(drop_first_packet(coloured_video, tmp_path / "headless.mp4"))
    shown = seen(reader.frames(range(len(reader))))
    assert shown == list(range(shown[0], 40)) and 0 < shown[0] <= 8


def test_a_video_recorded_sideways_stands_upright(tmp_path):
    frames = coloured_frames(10)
    frames[:, :, :16] = 255  # a white bar on the left, which a quarter turn clockwise brings to the top
    stored = save_video(tmp_path / "stored.mp4", frames, fps=10)
    turned = turn_right(stored, tmp_path / "turned.mp4", stored_height=48)
    shown = VideoReader(turned).frames([3])
    assert shown.shape == (1, 3, 64, 48)
    assert shown[0, :, :14].min() > 240 and shown[0, :, 18:].max() < 240
    resized = VideoReader(turned, width=24, height=32).frames([3])
    assert resized.shape == (1, 3, 32, 24) and resized[0, :, :6].min() > 240


def test_indices_out_of_range(coloured_video):
    reader = VideoReader(coloured_video)
    for read in (reader.frames, reader.timestamps):
        with pytest.raises(ValueError, match=r"\[40, -1\] are not in a video of 40 frames"):
            read([0, 40, -1])
        with pytest.raises(ValueError, match="no frame indices"):
            read([])


def complaint(path) -> str:
    """The message of the InputError, which must be one line that names the file."""
    with pytest.raises(InputError) as caught:
        VideoReader(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def test_files_that_are_no_video(tmp_path):
    assert "no such file" in complaint(tmp_path / "missing.mp4")
    assert "is a folder" in complaint(tmp_path)
    (tmp_path / "empty.mp4").touch()
    assert "is empty (0 bytes)" in complaint(tmp_path / "empty.mp4")
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    assert "not a video" in complaint(tmp_path / "text.mp4")
    assert "no video stream (streams: audio)" in complaint(save_sound(tmp_path / "sound.mp4"))


def noise(num_frames: int) -> np.ndarray:
    """Frames that compress badly, so that most of the file is pictures and not header."""
    return np.random.default_rng(0).integers(0, 255, (num_frames, 48, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("header_first", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_files_cut_short(tmp_path, share, header_first, capfd):
    path = save_video(tmp_path / "video.mp4", noise(24), fps=10, faststart=header_first)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    capfd.readouterr()
    assert "cut short" in complaint(path)
    assert capfd.readouterr() == ("", "")  # nothing of the decoders' own


def test_a_matroska_file_cut_short_is_a_shorter_video(tmp_path):
    path = save_video(tmp_path / "video.mkv", coloured_frames(40), fps=10)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    shown = seen(VideoReader(path).frames(range(len(VideoReader(path)))))
    assert 0 < len(shown) < 40
    assert shown == sorted(set(shown))  # the last group may lack a frame between two, none comes twice


def test_a_header_that_promises_ages_is_not_believed(tmp_path):
    path = save_video(tmp_path / "video.mkv", coloured_frames(40), fps=10)
    content = bytearray(path.read_bytes())
    duration = content.index(b"\x44\x89\x88") + 3  # Matroska: Duration, 8 bytes, milliseconds
    content[duration : duration + 8] = struct.pack(">d", 1e13)
    path.write_bytes(content)
    reader = VideoReader(path)
    assert len(reader) == 40 and seen(reader.frames([39, 4])) == [39, 4]


def test_tags_in_latin_1_do_no_harm(tmp_path):
    path = save_video(tmp_path / "video.mkv", coloured_frames(4), fps=10)
    path.write_bytes(path.read_bytes().replace(b"Lavf", b"L\xe4vf"))
    assert seen(VideoReader(path).frames([3])) == [3]


def test_damaged_pictures_are_an_error_each_time(tmp_path):
    path = save_video(tmp_path / "video.mp4", noise(24), fps=10)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20_000] = bytes(20_000)
    path.write_bytes(content)
    reader = VideoReader(path)
    for _ in range(2):
        with pytest.raises(InputError, match=r"video\.mp4: damaged, cannot decode frames \[0, 12, 23\]"):
            reader.frames([0, 12, 23])


def smooth_frames(num_frames: int, *, height: int, width: int) -> np.ndarray:
    """Waves that move: what a scaling filter changes little, unlike noise."""
    t, y, x = np.ogrid[:num_frames, :height, :width]
    waves = [np.sin(x / 9 + t + c) * np.cos(y / (7 + c)) for c in range(3)]
    return (127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(640, 360, (57, 32)), (360, 640, (32, 57)), (64, 64, (32, 32)), (32, 90, (32, 90)), (20, 31, (20, 31))],
)
def test_reduced_size(width, height, expected):
    assert reduced_size(width, height, shorter_side=32) == expected


@pytest.mark.parametrize("suffix", ["mp4", "ts"])  # one decoder each
@pytest.mark.parametrize(("height", "width"), [(96, 172), (172, 96)])
@pytest.mark.parametrize("resize", list(Resize))
def test_reduced_frames_are_nearly_those_that_are_resized_later(tmp_path, suffix, height, width, resize):
    path = save_video(tmp_path / f"v.{suffix}", smooth_frames(6, height=height, width=width), fps=10)
    exact, reduced = VideoReader(path).frames([1, 4]), VideoReader(path, shorter_side=40).frames([1, 4])
    assert exact.shape[2:] == (height, width) and sorted(reduced.shape[2:]) == [40, 72]
    assert (reduced.shape[3] > reduced.shape[2]) == (width > height)
    exact, reduced = (Preprocessing(resize).resized(frames, size=40).float() for frames in (exact, reduced))
    difference = (exact - reduced).abs()
    assert exact.shape == reduced.shape and difference.mean() < 6 and difference.max() < 30  # of 255


@pytest.mark.parametrize("suffix", ["mp4", "ts"])
@pytest.mark.parametrize("shorter_side", [48, 49, 500])
def test_frames_are_never_enlarged(tmp_path, suffix, shorter_side):
    path = save_video(tmp_path / f"v.{suffix}", coloured_frames(10), fps=10)
    found = VideoReader(path, shorter_side=shorter_side).frames([2, 7])
    assert torch.equal(found, VideoReader(path).frames([2, 7]))


def test_a_sideways_video_is_reduced_upright(tmp_path):
    stored = save_video(tmp_path / "stored.mp4", coloured_frames(10), fps=10)
    turned = turn_right(stored, tmp_path / "turned.mp4", stored_height=48)
    found = VideoReader(turned, shorter_side=24).frames([3])
    assert found.shape == (1, 3, 32, 24) and seen(found) == [3]


def test_a_size_is_given_in_one_way(coloured_video):
    with pytest.raises(ValueError, match="shorter_side=8 and width=32 exclude each other"):
        VideoReader(coloured_video, width=32, height=16, shorter_side=8)


ENCODINGS = {  # options of x264: how pictures depend on one another
    "every picture a keyframe": {"g": "1"},
    "two keyframes in a row of B-frames": {"g": "2", "bf": "1"},
    "B-frames that others need": {"g": "12", "bf": "3", "x264-params": "b-pyramid=normal"},
    "pictures that need some before the keyframe": {"g": "5", "bf": "3", "x264-params": "open-gop=1"},
    "no keyframe but the first": {"g": "5", "x264-params": "intra-refresh=1"},
}


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_frames_that_no_other_needs_are_left_out_unnoticed(tmp_path, encoding, num_threads):
    """Any frames in any order are what decoding the whole file gives, to the last bit."""
    path = save_video(tmp_path / "video.mp4", noise(30), fps=10, encoding=ENCODINGS[encoding])
    options = {"width": None, "height": None, "num_threads": num_threads}
    reader, whole = VideoReader(path, num_threads=num_threads), _SequentialDecoder(path, **options)
    assert isinstance(reader._decoder, _SkippingDecoder)
    assert reader.timestamps(range(30)) == pytest.approx(whole.starts)
    frames = torch.from_numpy(whole.read(range(30))).permute(0, 3, 1, 2)
    for indices in ([29], [0], [17, 3, 3, 28], [11, 12, 13, 14], list(range(30))):
        assert torch.equal(reader.frames(indices), frames[indices])
