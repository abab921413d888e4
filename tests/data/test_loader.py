import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from bad_sources import Numbers
from torchvision.io import encode_png
from videos import coloured_frames, save_video, seen

from coca_video.data.bad_samples import BadSample
from coca_video.data.captions import Captions
from coca_video.data.loader import BatchStream, DataConfig, _timeouts, training_batches
from coca_video.data.manifest import ClipRecord, write_manifest
from coca_video.data.mixing import Mixing
from coca_video.data.samples import Batch
from coca_video.data.sampling import Sampling
from coca_video.data.shards import PictureRecord, write_shards
from coca_video.data.sources import Bucket, Kind, SourceConfig, open_source
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
    configs: list[SourceConfig],
    tokenizer: Tokenizer,
    *,
    num_batches: int | None = 14,
    seed: int = 0,
    **settings,
) -> BatchStream:
    sources = [open_source(config, frame_size=SIZE, preprocessing=Preprocessing()) for config in configs]
    settings |= {"num_batches": num_batches, "seed": seed}
    return BatchStream(sources, configs, tokenizer, max_length=20, **settings)


def numbers(
    tokenizer: Tokenizer, *, num: int = 12, batch_size: int = 4, num_batches: int = 3, **changes
) -> BatchStream:
    """Of the samples of tests/bad_sources.py."""
    source = Numbers(num, **{name: changes.pop(name) for name in ("actions", "captions") if name in changes})
    config = SourceConfig(Kind.clips, "numbers", batch_size=batch_size)
    settings = {"max_length": 20, "num_batches": num_batches, "seed": 0} | changes
    return BatchStream([source], [config], tokenizer, **settings)


def rows_of(batches: list[Batch]) -> list[tuple]:
    """Every row of several shares of a batch: number, key, text, group and frames without padding."""
    rows = []
    for batch in batches:
        for i in range(batch.num_real):
            ids = batch.ids[i][batch.text_mask[i]].tolist()
            frames = batch.frames[i][batch.frame_mask[i]].flatten().tolist()
            rows.append((batch.rows[i], batch.keys[i], ids, batch.groups[i].item(), frames))
    return sorted(rows)


def names(batch: Batch) -> list[str]:
    """Keys without folders: "p3", "1.mp4"."""
    return [key.split(": sample ")[-1].split("/")[-1] for key in batch.keys]


def assert_equal(ours: Batch, theirs: Batch) -> None:
    assert (ours.keys, ours.rows, ours.bad) == (theirs.keys, theirs.rows, theirs.bad)
    for name in ("frames", "frame_mask", "ids", "text_mask", "groups"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


def test_pictures(folder):
    source = open_source(pictures(folder), frame_size=SIZE, preprocessing=Preprocessing())
    assert len(source) == NUM_PICTURES and list(source.texts()) == [
        f"picture {i}" for i in range(NUM_PICTURES)
    ]
    sample = source.sample(5, random.Random(0))
    key = f"{folder / 'shards' / 'p-000001.tar'}: sample p5"
    assert (sample.text, sample.key, sample.labels) == ("picture 5", key, {"number": "5"})
    assert sample.frames.shape == (1, 3, SIZE, SIZE) and seen(sample.frames) == [5]


def test_clips(folder):
    config = clips(folder, sampling=Sampling.uniform)
    source = open_source(config, frame_size=SIZE, preprocessing=Preprocessing())
    assert len(source) == NUM_CLIPS and list(source.texts()) == ["clip 0", "clip 1", "clip 2"]
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
    keys = [key for n in range(7) for key in names(batches[n])]
    epochs = [keys[:7], keys[7:14], keys[14:]]
    assert all(sorted(epoch) == [f"p{i}" for i in range(7)] for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 3


def test_each_source_keeps_its_own_epochs(folder, tokenizer):
    batches = stream([clips(folder), pictures(folder)], tokenizer, num_batches=7)
    counts = Counter(key for n in range(7) for key in names(batches[n]))
    assert {counts[f"p{i}"] for i in range(NUM_PICTURES)} == {3}  # 7 batches of 3
    assert sorted(counts[f"{i}.mp4"] for i in range(NUM_CLIPS)) == [4, 5, 5]  # 7 batches of 2


def test_a_batch_holds_all_sources_and_marks_the_frames_of_each(folder, tokenizer):
    batch = stream([clips(folder), pictures(folder)], tokenizer)[0]
    assert [Path(name).suffix for name in names(batch)] == [".mp4", ".mp4", "", "", ""]
    assert batch.frame_mask.sum(dim=1).tolist() == [4, 4, 1, 1, 1]


def test_texts_belong_to_their_frames(folder, tokenizer):
    batch = stream([pictures(folder)], tokenizer)[0]
    numbers = seen(batch.frames[:, 0])
    assert [tokenizer.decode(ids) for ids in batch.ids] == [f"picture {i}" for i in numbers]
    assert names(batch) == [f"p{i}" for i in numbers]


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


@pytest.mark.parametrize("num_ranks", [2, 3, 4])
@pytest.mark.parametrize("mixing", list(Mixing))
def test_the_shares_of_all_processes_are_the_batch_of_one(folder, tokenizer, num_ranks, mixing):
    """With the same random frames; the last batch, of one clip or picture, is shorter than the processes."""
    configs = [clips(folder, batch_size=2), pictures(folder, batch_size=3)]
    if mixing is Mixing.alternating:
        configs = [clips(folder, batch_size=4), pictures(folder, batch_size=5)]
    settings = {"num_batches": None, "num_epochs": 1, "mixing": mixing}
    one = stream(configs, tokenizer, **settings)
    several = [
        stream(configs, tokenizer, **settings, rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)
    ]
    seen_keys = []
    for number in range(len(one)):
        whole, shares = one[number], [each[number] for each in several]
        assert rows_of(shares) == rows_of([whole]) and whole.rows == list(range(len(whole)))
        sizes = [share.num_real for share in shares]
        assert max(sizes) - min(sizes) <= 1
        assert [share.is_filler for share in shares] == [size == 0 for size in sizes]
        seen_keys += names(whole)
    assert all(len(each) == len(one) and each.batch_size == one.batch_size for each in several)
    assert sorted(seen_keys) == sorted([f"{i}.mp4" for i in range(3)] + [f"p{i}" for i in range(7)])
    assert one.samples_before(len(one)) == 10
    assert min(share.num_real for share in shares) == (0 if num_ranks > len(whole) else 1)


def test_a_filler_is_one_black_frame(tokenizer):
    batch = numbers(tokenizer, num=4, num_batches=1, rank=3, num_ranks=4, num_epochs=1)[0]
    assert not batch.is_filler and batch.num_real == 1
    short = numbers(tokenizer, num=5, num_batches=2, rank=3, num_ranks=4, num_epochs=1)[1]
    assert short.is_filler and (short.num_real, short.num_seen, len(short)) == (0, 0, 1)
    assert short.frames.shape == (1, 1, 3, 4, 4) and short.frames.sum() == 0 and short.text_mask.any()
    assert short.rows == [0] and short.bad == []


def test_a_finite_stream_ends(tokenizer):
    batches = numbers(tokenizer, num=10, num_batches=None, num_epochs=2)
    assert (len(batches), batches.batch_size, batches.samples_before(5)) == (5, 4, 20)
    short = numbers(tokenizer, num=9, num_batches=None, num_epochs=1)
    assert [len(short[number]) for number in range(len(short))] == [4, 4, 1]
    assert len(numbers(tokenizer, num=10, num_batches=3, num_epochs=2)) == 3
    with pytest.raises(ValueError, match="needs num_batches or num_epochs"):
        numbers(tokenizer, num_batches=None)


def test_a_small_source_may_be_read_whole_or_again(tokenizer):
    whole = numbers(tokenizer, num=3, batch_size=8, num_batches=None, num_epochs=1)
    assert len(whole) == 1 and sorted(whole[0].keys) == ["0", "1", "2"]
    config = SourceConfig(Kind.clips, "numbers", batch_size=8, resample=True)
    drawn = BatchStream([Numbers(3)], [config], tokenizer, max_length=9, num_batches=2, seed=0)
    assert len(drawn[0]) == 8 and set(drawn[0].keys) <= {"0", "1", "2"}


def test_alternating_batches_are_of_one_source(folder, tokenizer):
    configs = [clips(folder, weight=0.25), pictures(folder, weight=0.75)]
    batches = stream(configs, tokenizer, num_batches=8, mixing=Mixing.alternating)
    found = [names(batches[number]) for number in range(8)]
    assert [len(each) for each in found].count(2) == 2 and batches.batch_size == 3
    assert all(len({name[-4:] == ".mp4" for name in each}) == 1 for each in found)
    keys = [name for each in found if len(each) == 3 for name in each]
    assert sorted(keys[:7]) == [f"p{i}" for i in range(7)]
    assert batches.samples_before(8) == 2 * 2 + 6 * 3


def test_batches_of_similar_length(tokenizer):
    """Samples have one to three frames: batches of four from twelve are of one length each."""
    source = Numbers(12)
    source.length = frames_of
    config = SourceConfig(Kind.clips, "numbers", batch_size=4, num_frames=3, bucket=Bucket.frames)
    batches = BatchStream([source], [config], tokenizer, max_length=9, num_batches=6, seed=0)
    assert all(batches[number].frame_mask.all() for number in range(6))
    assert sorted(key for number in range(3) for key in batches[number].keys) == sorted(map(str, range(12)))


def frames_of(index: int, bucket: Bucket) -> int:
    return 1 + index % 3


@pytest.mark.parametrize(
    "mixing, found", [("together", r"3 \+ 2 = 5 samples for 6"), ("alternating", "2 samples for 6")]
)
def test_fewer_samples_than_processes_are_refused(folder, tokenizer, mixing, found):
    configs = [pictures(folder), clips(folder)]
    with pytest.raises(InputError, match=f"data.sources: a batch of {found} processes"):
        stream(configs, tokenizer, rank=0, num_ranks=6, mixing=Mixing(mixing))


BAD = {"refuse": ("video", "5: is refused"), "fail": ("video", "5: ZeroDivisionError: division by zero")}
BAD |= {"lose": ("video", "5: PermissionError: Permission denied")}
BAD |= {"kill": ("crash", "its process died of SIGKILL"), "hang": ("timeout", "took longer than 2 seconds")}


@pytest.mark.parametrize("action", BAD)
def test_a_bad_sample_is_left_out_and_said(tokenizer, action):
    """Its neighbours and the other batches are as they would be without it."""
    num_workers = 0 if action in ("refuse", "fail", "lose") else 2
    whole = numbers(tokenizer)
    loaded = training_batches(
        numbers(tokenizer, actions={5: action}), first=0, num_workers=num_workers, timeout=2
    )
    bad = BadSample("numbers", "5", *BAD[action])
    num_bad = 0
    for number, batch in enumerate(loaded):
        assert rows_of([batch]) == [row for row in rows_of([whole[number]]) if row[1] != "5"]
        assert batch.bad == ([bad] if "5" in whole[number].keys else [])
        assert batch.num_seen == 4 and not batch.is_filler
        num_bad += len(batch.bad)
    assert num_bad == 1


@pytest.mark.parametrize("num_ranks, timeouts", [(1, 8.0), (4, 2.0), (8, 1.0), (512, 1.0)])
def test_a_large_share_has_more_time(tokenizer, num_ranks, timeouts):
    """Few processes of a run that is meant for many would else read each batch twice."""
    share = numbers(tokenizer, num=512, batch_size=512, num_batches=1, num_ranks=num_ranks)
    assert _timeouts(share) == timeouts


def test_a_share_of_bad_samples_is_a_filler(tokenizer):
    batch = numbers(tokenizer, num=4, num_batches=1, actions={i: "refuse" for i in range(4)})[0]
    assert batch.is_filler and batch.num_real == 0 and batch.num_seen == 4
    assert sorted(bad.key for bad in batch.bad) == ["0", "1", "2", "3"]


def test_prompts_share_the_group_of_their_label(tokenizer):
    captions = Captions(["a photo of {}.", "a drawing of {}."], "parity")
    batches = numbers(tokenizer, num_batches=3, captions=captions)
    texts, groups = set(), {}
    for batch in (batches[number] for number in range(3)):
        for key, ids, group in zip(batch.keys, batch.ids, batch.groups.tolist()):
            texts.add(tokenizer.decode(ids))
            groups.setdefault(int(key) % 2, set()).add(group)
    assert texts == {f"a {how} of {what}." for how in ("photo", "drawing") for what in ("even", "odd")}
    assert [len(each) for each in groups.values()] == [1, 1] and groups[0] != groups[1]


def test_a_stream_says_which_shards_are_cut_short(folder, tokenizer, tmp_path):
    for shard in sorted((folder / "shards").glob("*.tar")):
        content = shard.read_bytes()
        (tmp_path / shard.name).write_bytes(content[:1100] if "000001" in shard.name else content)
    config = SourceConfig(Kind.pictures, str(tmp_path), batch_size=2)
    (problem,) = stream([config], tokenizer).problems
    assert (problem.kind, problem.key) == ("shard", str(tmp_path / "p-000001.tar"))
    assert "cut short" in problem.reason


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"max_bad_share": -0.1}, r"max_bad_share must be in \[0, 1\], got -0.1"),
        ({"timeout": 0}, "timeout must be more than 0 seconds, got 0"),
        ({"sources": []}, "sources must name at least one source"),
        ({"num_workers": -1}, "num_workers must not be negative, got -1"),
    ],
)
def test_settings_are_checked(folder, changes, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**{"sources": [pictures(folder)]} | changes)


def test_weights_are_of_sources_that_alternate(folder):
    with pytest.raises(ValueError, match="weights 2, 1 need mixing=alternating, got mixing=together"):
        DataConfig([clips(folder, weight=2.0), pictures(folder)])
    DataConfig([clips(folder, weight=2.0), pictures(folder)], mixing=Mixing.alternating)
