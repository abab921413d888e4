import os

import pytest
import torch
from torchvision.io import encode_png
from videos import coloured_frames, save_video, seen

from coca_video.data.shard_frames import shard_frames
from coca_video.data.shard_records import ShardRecord
from coca_video.errors import InputError

NAME = "s3://bucket/x.tar: sample a"


def record(encoded: bytes, suffix: str) -> ShardRecord:
    return ShardRecord("a", encoded, "a text", {}, suffix, name=NAME)


def every_third(num_frames: int, seconds: float) -> list[int]:
    return list(range(0, num_frames, 3))


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4")]
)
def test_frames_of_a_video(tmp_path, suffix, codec):
    path = save_video(tmp_path / f"a.{suffix}", coloured_frames(10, height=48), fps=10, codec=codec)
    frames = shard_frames(record(path.read_bytes(), suffix), every_third)
    assert (frames.shape, seen(frames)) == ((4, 3, 48, 64), [0, 3, 6, 9])
    assert shard_frames(record(path.read_bytes(), suffix), every_third, shorter_side=24).shape[2:] == (
        24,
        32,
    )


def test_the_frame_of_a_picture():
    picture = torch.arange(60, dtype=torch.uint8).view(3, 4, 5)
    frames = shard_frames(record(bytes(encode_png(picture).tolist()), "png"), every_third)
    assert torch.equal(frames, picture[None])


@pytest.mark.parametrize("suffix", ["mp4", "png"])
@pytest.mark.parametrize("encoded", [b"", b"no such thing" * 100])
def test_what_cannot_be_read_is_named_by_shard_and_key(suffix, encoded):
    with pytest.raises(InputError, match=f"^{NAME}: ") as refused:
        shard_frames(record(encoded, suffix), every_third)
    assert "/proc" not in str(refused.value) and "\n" not in str(refused.value)


def test_a_video_cut_short(coloured_video):
    with pytest.raises(InputError, match=f"^{NAME}: "):
        shard_frames(record(coloured_video.read_bytes()[:-3000], "mp4"), every_third)


def test_nothing_stays_open(coloured_video):
    before = len(os.listdir("/proc/self/fd"))
    for encoded in (coloured_video.read_bytes(), b"broken"):
        for _ in range(3):
            try:
                shard_frames(record(encoded, "mp4"), every_third)
            except InputError:
                continue
    assert len(os.listdir("/proc/self/fd")) == before


def test_where_there_are_no_files_in_memory(coloured_video, monkeypatch, tmp_path):
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert seen(shard_frames(record(coloured_video.read_bytes(), "mp4"), every_third))[:3] == [0, 3, 6]
    with pytest.raises(InputError, match=f"^{NAME}: "):
        shard_frames(record(b"broken", "mp4"), every_third)
    assert list(tmp_path.iterdir()) == []
