"""The two benchmarks that read video files."""

import numpy as np
import pytest
from benchmark_runs import run, tiny_settings

from coca_video.benchmarks.clips import FORMATS, moving_texture, write_clip
from coca_video.benchmarks.decode import OURS, READERS
from coca_video.benchmarks.decoders import why_no_torchcodec
from coca_video.data.sampling import uniform
from coca_video.data.video import VideoReader
from coca_video.errors import InputError


@pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)
def test_all_readers_see_the_same_frames(kind, tmp_path):
    path = tmp_path / f"clip{kind.suffix}"
    write_clip(path, kind, seconds=1, height=64)
    written = np.stack(list(moving_texture(30, height=64, width=114, seed=0))).astype(float)
    for name, read in READERS.items():
        if name != "torchcodec" or why_no_torchcodec() is None:
            frames = read(path, 3)
            frames = frames if frames.shape[-1] == 3 else frames.transpose(0, 2, 3, 1)
            nearest = [np.abs(written - frame).mean(axis=(1, 2, 3)).argmin() for frame in frames]
            assert nearest == uniform(30, num_samples=3), name


def test_clips_move_and_last_as_long_as_asked(tmp_path):
    write_clip(tmp_path / "clip.mp4", FORMATS["H.264 mp4"], seconds=2, height=36)
    reader = VideoReader(tmp_path / "clip.mp4")
    assert len(reader) == 60 and reader.duration == pytest.approx(2.0)
    first, later = reader.frames([0, 30]).float()
    assert (first - later).abs().mean() > 10


def test_an_odd_height_is_refused(tmp_path):
    with pytest.raises(InputError, match="^--height 35: video needs an even number of pixels$"):
        write_clip(tmp_path / "clip.mp4", FORMATS["H.264 mp4"], seconds=1, height=35)


def test_decode_compares_every_reader_on_every_clip():
    result = run("decode", "--heights", 32, 48, "--seconds", 1, "--num-frames", 2, "--repeats", 1)
    seconds, ratios = result.figures["seconds"], result.figures["ratios"]
    assert list(seconds) == [f"{name} {height}" for height in (32, 48) for name in FORMATS]
    taken = seconds["H.264 mp4 48"]
    assert ratios["decord"]["H.264 mp4 48"] == taken[OURS] / taken["decord"]
    assert len(result.rows) == 1 + len(seconds) and "decord" in result.last
    is_missing = why_no_torchcodec() is not None
    assert is_missing == any(note.startswith("torchcodec: ") for note in result.notes)


def test_video_encode_gives_the_embeddings_of_the_loop(tmp_path):
    sizes = ["--num-clips", 3, "--seconds", 1, "--num-frames", 2, "--height", 64, "--batch-size", 2]
    result = run("video_encode", "--model", tiny_settings(tmp_path), *sizes, "--repeats", 1)
    figures = result.figures
    assert figures["smallest_cosine"] > 0.97  # Pillow and torchvision resize differently
    rates = figures["clips_per_second"]
    assert rates["ours"] == 3 / figures["seconds"]["ours"]
    assert figures["ratio"] == rates["ours"] / rates["theirs"] and figures["num_different_clips"] == 2
