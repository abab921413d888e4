import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from torchvision.io import encode_png
from videos import coloured_frames, save_video, seen

from coca_video.data.loader import (
    BatchStream,
    Kind,
    SourceConfig,
    open_source,
    training_batches,
)
from coca_video.data.manifest import ClipRecord, write_manifest
from coca_video.data.samples import Batch
from coca_video.data.sampling import Sampling
from coca_video.data.shards import PictureRecord, write_shards
from coca_video.data.tokenizer import Tokenizer
from coca_video.data.transforms import Preprocessing
from coca_video.errors import InputError

NUM_PICTURES, NUM_CLIPS, SIZE = 7, 3, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven pictures in two shards, and three clips of twelve frames in a manifest."""
    folder = tmp_path_factory.mktemp("data")
    pictures = []
    for i in range(NUM_PICTURES):
        png = encode_png(torch.from_numpy(coloured_frames(i + 1, height=20, width=20)[i]).permute(2, 0, 1))
        pictures.append(PictureRecord(f"p{i}", bytes(png.tolist()), f"picture {i}", {"number": str(i)}))
    write_shards(folder / "shards", pictures, max_per_shard=4, prefix="p")
    clips = []
    for i in range(NUM_CLIPS):
        path = save_video(folder / f"{i}.mp4", coloured_frames(12), fps=10)
        clips.append(ClipRecord(path, f"clip {i}", {"number": str(i)}))
    write_manifest(folder / "clips.jsonl", clips)
    return folder


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["picture", "clip"] * 2, vocab_size=270)


def pictures(folder: Path, **changes) -> SourceConfig:
    return SourceConfig(Kind.pictures, str(folder / "shards"), **({"batch_size": 3} | changes))


def clips(folder: Path, **changes) -> SourceConfig:
    counts = {"batch_size": 2, "num_frames": 4}
    return SourceConfig(Kind.clips, str(folder / "clips.jsonl"), **(counts | changes))


def stream(
    configs: list[SourceConfig], tokenizer: Tokenizer, *, num_batches: int = 14, seed: int = 0
) -> BatchStream:
    sources = [open_source(config, frame_size=SIZE, preprocessing=Preprocessing()) for config in configs]
    return BatchStream(sources, configs, tokenizer, max_length=20, num_batches=num_batches, seed=seed)


def assert_equal(ours: Batch, theirs: Batch) -> None:
    assert ours.keys == theirs.keys
    for name in ("frames", "frame_mask", "ids", "text_mask", "groups"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


def test_pictures(folder):
    source = open_source(pictures(folder), frame_size=SIZE, preprocessing=Preprocessing())
    assert len(source) == NUM_PICTURES and source.texts() == [f"picture {i}" for i in range(NUM_PICTURES)]
    sample = source.sample(5, random.Random(0))
    assert (sample.text, sample.key, sample.labels) == ("picture 5", "p5", {"number": "5"})
    assert sample.frames.shape == (1, 3, SIZE, SIZE) and seen(sample.frames) == [5]


def test_clips(folder):
    config = clips(folder, sampling=Sampling.uniform)
    source = open_source(config, frame_size=SIZE, preprocessing=Preprocessing())
    assert len(source) == NUM_CLIPS and source.texts() == ["clip 0", "clip 1", "clip 2"]
    sample = source.sample(1, random.Random(0))
    assert (sample.text, sample.key, sample.labels) == ("clip 1", str(folder / "1.mp4"), {"number": "1"})
    assert sample.frames.shape == (4, 3, SIZE, SIZE) and seen(sample.frames) == [1, 4, 7, 10]


def test_random_frames_come_from_the_rng_alone(folder):
    source = open_source(clips(folder), frame_size=SIZE, preprocessing=Preprocessing())
    drawn = [seen(source.sample(0, random.Random(seed)).frames) for seed in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1] and len(set(map(tuple, drawn))) > 2
    assert all(low <= frame < low + 3 for frames in drawn for low, frame in zip((0, 3, 6, 9), frames))


def test_batch_n_depends_on_seed_and_n_alone(folder, tokenizer):
    configs = [clips(folder), pictures(folder)]
    forward, backward = stream(configs, tokenizer), stream(configs, tokenizer, num_batches=20)
    batches = [forward[n] for n in range(6)]
    random.seed(5)
    for n in reversed(range(6)):
        assert_equal(backward[n], batches[n])
    other = stream(configs, tokenizer, seed=1)
    assert [other[n].keys for n in range(6)] != [batch.keys for batch in batches]


def test_an_epoch_sees_every_sample_once(folder, tokenizer):
    """Seven batches of three are three epochs of seven; every other batch crosses from one to the next."""
    batches = stream([pictures(folder)], tokenizer, num_batches=7)
    keys = [key for n in range(7) for key in batches[n].keys]
    epochs = [keys[:7], keys[7:14], keys[14:]]
    assert all(sorted(epoch) == [f"p{i}" for i in range(7)] for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 3


def test_each_source_keeps_its_own_epochs(folder, tokenizer):
    batches = stream([clips(folder), pictures(folder)], tokenizer, num_batches=7)
    counts = Counter(key for n in range(7) for key in batches[n].keys)
    assert {counts[f"p{i}"] for i in range(NUM_PICTURES)} == {3}  # 7 batches of 3
    assert sorted(counts[str(folder / f"{i}.mp4")] for i in range(NUM_CLIPS)) == [4, 5, 5]  # 7 batches of 2


def test_a_batch_holds_all_sources_and_marks_the_frames_of_each(folder, tokenizer):
    batch = stream([clips(folder), pictures(folder)], tokenizer)[0]
    assert [Path(key).suffix for key in batch.keys] == [".mp4", ".mp4", "", "", ""]
    assert batch.frame_mask.sum(dim=1).tolist() == [4, 4, 1, 1, 1]


def test_texts_belong_to_their_frames(folder, tokenizer):
    batch = stream([pictures(folder)], tokenizer)[0]
    numbers = seen(batch.frames[:, 0])
    assert [tokenizer.decode(ids) for ids in batch.ids] == [f"picture {i}" for i in numbers]
    assert batch.keys == [f"p{i}" for i in numbers]


def test_a_batch_larger_than_its_source_is_refused(folder, tokenizer):
    with pytest.raises(InputError, match="shards: batch_size 8 exceeds its 7 samples"):
        stream([clips(folder), pictures(folder, batch_size=8)], tokenizer)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"batch_size": -1}, {"num_frames": 0}, {"stride": 0}])
def test_counts_are_positive(folder, wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name} must be positive, got {value}"):
        pictures(folder, **wrong)


def test_dense_clips_keep_their_stride(folder):
    config = clips(folder, sampling=Sampling.dense, stride=2)
    source = open_source(config, frame_size=SIZE, preprocessing=Preprocessing())
    drawn = [seen(source.sample(0, random.Random(seed)).frames) for seed in range(5)]
    assert all([b - a for a, b in zip(frames, frames[1:])] == [2, 2, 2] for frames in drawn)
    assert len(set(map(tuple, drawn))) > 1


def test_reduced_decoding(folder):
    """Frames of 48 by 64 pixels, decoded with 16 on the shorter side."""
    config = clips(folder, sampling=Sampling.uniform)
    settings = {"frame_size": SIZE, "preprocessing": Preprocessing()}
    sources = [open_source(config, **settings, reduced_decoding=reduced) for reduced in (False, True)]
    exact, reduced = (source.sample(1, None).frames for source in sources)
    assert exact.shape == reduced.shape == (4, 3, SIZE, SIZE) and seen(reduced) == [1, 4, 7, 10]
    assert (exact.int() - reduced.int()).abs().max() <= 8


def test_pictures_have_one_frame(folder):
    with pytest.raises(ValueError, match="num_frames must be 1 for pictures, got 4"):
        pictures(folder, num_frames=4)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_workers_and_resuming_change_nothing(folder, tokenizer, num_workers):
    batches = stream([clips(folder), pictures(folder)], tokenizer, num_batches=6)
    expected = [batches[n] for n in range(6)]
    for first in (0, 4):
        loaded = list(training_batches(batches, first=first, num_workers=num_workers))
        assert len(loaded) == 6 - first
        for ours, theirs in zip(loaded, expected[first:]):
            assert_equal(ours, theirs)
    assert list(training_batches(batches, first=6, num_workers=num_workers)) == []
