import io
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tars import write_tar
from videos import coloured_frames, save_video, seen

from coca_video.data.bad_samples import Unreadable
from coca_video.data.loader import BatchStream
from coca_video.data.manifest import ClipRecord, write_manifest
from coca_video.data.sampling import Sampling
from coca_video.data.sources import (
    Bucket,
    FrameChoice,
    Kind,
    Source,
    SourceConfig,
    open_source,
    shuffle_window,
)
from coca_video.data.tokenizer import Tokenizer
from coca_video.data.transforms import Preprocessing
from coca_video.errors import InputError
from coca_video.tasks.picture_pairs import PicturePairs
from coca_video.tasks.task import asking

SIZE = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One shard with a video of 20 frames, 2 seconds, and a picture; a manifest with both, and a span."""
    folder = tmp_path_factory.mktemp("data")
    video, picture = save_video(folder / "v.mp4", coloured_frames(20), fps=10), folder / "p.png"
    Image.new("RGB", (24, 20), (20, 20, 20)).save(picture)
    members = {"v.mp4": video.read_bytes(), "v.txt": b"a video", "v.json": b'{"animal": "fox"}'}
    members |= {"p.png": picture.read_bytes(), "p.txt": "a für".encode(), "p.json": b'{"animal": "cat"}'}
    write_tar(folder / "x-0.tar", members)
    fox = {"animal": "fox"}
    records = [
        ClipRecord(video, "a video", fox),
        ClipRecord(picture, "a für", {"animal": "cat"}),
        ClipRecord(video, "half", fox, span=[0.5, 1.5]),
        ClipRecord(video, "labelled", fox | {"duration": "1.5"}),
    ]
    write_manifest(folder / "clips.jsonl", records)
    return folder


def opened(kind: Kind, path: Path, **changes) -> Source:
    settings = {"num_frames": 4, "sampling": Sampling.uniform} if kind is not Kind.pictures else {}
    config = SourceConfig(kind, str(path), **settings | changes)
    return open_source(config, frame_size=SIZE, preprocessing=Preprocessing())


def test_shards_hold_videos_and_pictures(folder):
    source = pickle.loads(pickle.dumps(opened(Kind.shards, folder)))
    assert (len(source), source.sizes, list(source.texts())) == (2, [2], ["a video", "a für"])
    video, picture = (source.sample(i, random.Random(0)) for i in range(2))
    assert seen(video.frames) == [2, 7, 12, 17] and video.frames.shape == (4, 3, SIZE, SIZE)
    assert seen(picture.frames) == [0] and picture.labels == {"animal": "cat"}
    assert (picture.text, picture.group) == ("a für", "a für")
    assert picture.key == f"{folder / 'x-0.tar'}: sample p" == source.key(1)
    assert [source.is_video(i) for i in range(2)] == [True, False]
    assert [source.length(i, Bucket.text) for i in range(2)] == [7, 6]
    assert [source.length(i, Bucket.frames) for i in range(2)] == [4, 1]
    assert source.origin(0) != source.origin(1)


@pytest.mark.parametrize("kind, path", [(Kind.clips, "clips.jsonl"), (Kind.shards, "x-0.tar")])
@pytest.mark.parametrize("rate, frames", [(1.0, [4, 14]), (2.0, [2, 7, 12, 17]), (0.1, [9]), (9.0, None)])
def test_longer_clips_have_more_frames(folder, kind, path, rate, frames):
    """Of two seconds, as many as the rate says, from one to num_frames."""
    source = opened(kind, folder / path, frames_per_second=rate, num_frames=5)
    found = seen(source.sample(0, random.Random(0)).frames)
    assert found == ([1, 5, 9, 13, 17] if frames is None else frames)
    assert len(source.sample(1, None).frames) == 1


def test_a_clips_length_is_told_by_its_span_or_label(folder):
    source = opened(Kind.clips, folder / "clips.jsonl", frames_per_second=4.0, num_frames=9)
    assert [source.length(i, Bucket.frames) for i in range(4)] == [9, 1, 4, 6]
    assert [len(source.sample(i, None).frames) for i in range(4)] == [8, 1, 4, 8]
    assert [source.length(i, Bucket.text) for i in range(4)] == [7, 6, 4, 8]


def test_frames_a_second_are_other_frames_to_a_cache():
    settings = (4, Sampling.uniform, 1)
    assert "frames_per_second" not in FrameChoice(*settings).origin()
    assert FrameChoice(*settings, 2.0).origin() == FrameChoice(*settings).origin() | {
        "frames_per_second": 2.0
    }


@pytest.mark.parametrize("kind, path", [(Kind.clips, "clips.jsonl"), (Kind.shards, "x-0.tar")])
def test_prompts_say_a_label(folder, tmp_path, kind, path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a photo of a {}\na drawing of a {}\n")
    source = opened(kind, folder / path, prompts=str(prompts), label="animal")
    drawn = {source.sample(0, random.Random(seed)).text for seed in range(9)}
    assert drawn == {"a photo of a fox", "a drawing of a fox"}
    sample = source.sample(1, None)
    assert (sample.text, sample.group) == ("a photo of a cat", "cat")
    assert list(source.texts())[:2] == ["a photo of a fox", "a drawing of a cat"]
    plain = opened(kind, folder / path, prompts=str(prompts)).sample(1, None)
    assert (plain.text, plain.group) == ("a photo of a a für", "a für")


def bomb() -> bytes:
    """A picture of more pixels than Pillow takes for honest, in few bytes."""
    content = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(content, "png")
    return content.getvalue()


def damaged(folder: Path) -> bytes:
    """A video of noise with a hole in the middle."""
    frames = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), dtype=np.uint8)
    content = bytearray(save_video(folder / "noise.mp4", frames, fps=10).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20_000] = bytes(20_000)
    return bytes(content)


def bad_members(folder: Path) -> dict[str, dict[str, bytes]]:
    """By the kind and reason that is expected."""
    png, text, label = (folder / "p.png").read_bytes(), b"a text", b'{"animal": "fox"}'
    return {
        "picture: is not a readable picture": {"png": png[:60], "txt": text, "json": label},
        "picture: is not a readable picture (Image size": {"png": bomb(), "txt": text, "json": label},
        "video: ": {"mp4": damaged(folder), "txt": text, "json": label},
        "video:": {"mp4": (folder / "v.mp4").read_bytes()[:-900], "txt": text, "json": label},
        "text: its text is empty": {"png": png, "txt": b" \n", "json": label},
        "record lacks a picture or video": {"txt": text, "json": label},
        "text lacks a text": {"png": png, "json": label},
        "text: lacks the label 'animal'; it has no labels": {"png": png, "txt": text},
    }


def test_bad_samples_of_shards(folder, tmp_path):
    expected = bad_members(folder)
    for i, members in enumerate(expected.values()):
        write_tar(tmp_path / f"{i}.tar", {f"s.{suffix}": content for suffix, content in members.items()})
    config = SourceConfig(
        Kind.shards, str(tmp_path), batch_size=8, num_frames=6, prompts="photo", label="animal"
    )
    source = open_source(config, frame_size=SIZE, preprocessing=Preprocessing())
    settings = {"max_length": 9, "num_batches": 1, "seed": 0}
    batch = BatchStream([source], [config], Tokenizer.train(["a"], vocab_size=260), **settings)[0]
    assert batch.is_filler and len(batch.bad) == len(expected)
    by_key = {bad.key: bad for bad in batch.bad}
    for i, wanted in enumerate(expected):
        bad = by_key[f"{tmp_path / f'{i}.tar'}: sample s"]
        assert f"{bad.kind}{bad.reason.removeprefix(bad.key)}".startswith(wanted)
        assert bad.source == str(tmp_path) and "\n" not in bad.reason


def test_bad_samples_of_manifests(folder, tmp_path):
    (tmp_path / "damaged.mp4").write_bytes(damaged(folder))
    (tmp_path / "bomb.png").write_bytes(bomb())
    good = folder / "v.mp4"
    records = [ClipRecord(tmp_path / name, "a text") for name in ("damaged.mp4", "bomb.png")]
    records += [ClipRecord(good, " "), ClipRecord(good, "late", span=[60, 70]), ClipRecord(good, "good")]
    write_manifest(tmp_path / "clips.jsonl", records)
    source = opened(Kind.clips, tmp_path / "clips.jsonl")
    kinds = []
    for i in range(4):
        with pytest.raises(Unreadable) as caught:
            source.sample(i, random.Random(0))
        assert str(caught.value).startswith(source.key(i))
        kinds.append(caught.value.kind)
    assert kinds == ["video", "picture", "text", "video"]
    assert source.sample(4, None).text == "good"


def test_a_video_among_pictures(folder):
    source = opened(Kind.pictures, folder)
    with pytest.raises(Unreadable, match="x-0.tar: sample v: is a video, expected a picture; kind=shards"):
        source.sample(0, None)
    assert seen(source.sample(1, None).frames) == [0]


def test_few_pictures_are_shuffled_as_one(folder):
    pictures = SourceConfig(Kind.pictures, str(folder))
    shards = SourceConfig(Kind.shards, str(folder), shuffle_shards=3)
    source = opened(Kind.pictures, folder)
    assert shuffle_window(source, pictures) is None and shuffle_window(source, shards) == 3


@pytest.mark.parametrize(
    "kind, changes, message",
    [
        ("shards", {"batch_size": 0}, "batch_size must be positive, got 0"),
        ("shards", {"shuffle_shards": -1}, "shuffle_shards must be positive, got -1"),
        ("shards", {"weight": 0}, "weight must be positive, got 0"),
        ("shards", {"weight": float("nan")}, "weight must be positive, got nan"),
        ("shards", {"frames_per_second": 0.0}, "frames_per_second must be positive, got 0.0"),
        ("shards", {"label": "class"}, "label=class would have no effect"),
        ("pictures", {"num_frames": 2}, "num_frames must be 1 for pictures, got 2"),
        (
            "pictures",
            {"frames_per_second": 1.0},
            "frames_per_second would have no effect for pictures, got 1.0",
        ),
        ("pictures", {"bucket": Bucket.frames}, "bucket would have no effect for pictures, got frames"),
    ],
)
def test_settings_are_checked(kind, changes, message):
    with pytest.raises(ValueError, match=message):
        SourceConfig(Kind(kind), "x", **changes)


def test_an_unknown_set_of_prompts(folder):
    with pytest.raises(InputError, match="no such set of templates"):
        opened(Kind.clips, folder / "clips.jsonl", prompts="phot")


def test_a_filler_has_the_size_of_the_others(folder):
    filler = opened(Kind.clips, folder / "clips.jsonl").filler()
    assert filler.frames.shape == (1, 3, SIZE, SIZE) and not torch.any(filler.frames)


@pytest.mark.parametrize("kind, path", [(Kind.clips, "clips.jsonl"), (Kind.shards, "x-0.tar")])
def test_a_subset(folder, kind, path):
    """Those of a label, or of one of its values: read, asked for and kept as in the whole."""
    whole = opened(kind, folder / path)
    foxes = [i for i in range(len(whole)) if whole.record(i).labels["animal"] == "fox"]
    source = pickle.loads(pickle.dumps(opened(kind, folder / path, subset="animal=fox")))
    assert len(source) == len(foxes) and source.sizes == [len(foxes)]
    assert list(source.texts()) == [whole.record(i).text for i in foxes]
    for place, i in enumerate(foxes):
        assert (source.key(place), source.origin(place)) == (whole.key(i), whole.origin(i))
        assert source.record(place) == whole.record(i) and source.is_video(place)
        assert [source.length(place, b) for b in Bucket] == [whole.length(i, b) for b in Bucket]
        ours, theirs = source.sample(place, random.Random(0)), whole.sample(i, random.Random(0))
        assert torch.equal(ours.frames, theirs.frames) and ours.text == theirs.text
    assert len(opened(kind, folder / path, subset="animal")) == len(whole)
    assert torch.equal(source.filler().frames, whole.filler().frames)


def test_an_empty_subset(folder):
    with pytest.raises(InputError, match="clips.jsonl: none of its 4 samples is in the subset 'animal=cow'"):
        opened(Kind.clips, folder / "clips.jsonl", subset="animal=cow")


def test_a_subset_of_shards_of_which_one_has_none(tmp_path):
    png = io.BytesIO()
    Image.new("RGB", (24, 20)).save(png, "png")
    for shard, animals in enumerate(["fox cat", "cat", "cat fox fox"]):
        members = {}
        for i, animal in enumerate(animals.split()):
            about = f'{{"animal": "{animal}"}}'.encode()
            members |= {f"{i}.png": png.getvalue(), f"{i}.txt": f"{shard} {i}".encode(), f"{i}.json": about}
        write_tar(tmp_path / f"x-{shard}.tar", members)
    config = SourceConfig(Kind.shards, str(tmp_path), batch_size=1, shuffle_shards=1, subset="animal=fox")
    source = open_source(config, frame_size=SIZE, preprocessing=Preprocessing())
    assert source.sizes == [1, 0, 2]
    tokenizer = Tokenizer.train(["0 1 2"], vocab_size=300)
    stream = BatchStream([source], [config], tokenizer, max_length=9, num_batches=6, seed=0)
    read = [tokenizer.decode(stream[n].ids[0]) for n in range(6)]
    assert sorted(read[:3]) == sorted(read[3:]) == ["0 0", "2 1", "2 2"]


@pytest.fixture
def pairs(folder, tmp_path) -> Path:
    """A gray picture and a white one, in both orders."""
    white = tmp_path / "white.png"
    Image.new("RGB", (30, 20), (255, 255, 255)).save(white)
    gray = folder / "p.png"
    records = [ClipRecord(gray, "both", second_path=white), ClipRecord(white, "both", second_path=gray)]
    write_manifest(tmp_path / "pairs.jsonl", records)
    return tmp_path / "pairs.jsonl"


def test_a_pair_is_read_behind_one_another(pairs):
    source = opened(Kind.clips, pairs)
    for index, levels in enumerate(([20, 255], [255, 20])):
        frames = source.sample(index, random.Random(0)).frames
        assert frames.shape == (2, 3, SIZE, SIZE) and frames.float().mean(dim=(1, 2, 3)).tolist() == levels
    assert source.origin(0) != source.origin(1)
    assert source.origin(0)["second"]["video"] == source.origin(1)["video"]


def test_the_second_of_a_pair_must_be_there(pairs):
    (pairs.parent / "white.png").unlink()
    with pytest.raises(
        InputError, match=f"{pairs}: names {pairs.parent / 'white.png'}, which does not exist"
    ):
        opened(Kind.clips, pairs)


def test_a_task_says_what_samples_are_read_with(pairs):
    task = PicturePairs(classes=["no", "yes"])
    records = [ClipRecord(Path("a.png"), "is it", {"answer": "yes"}, second_path=Path("b.png"))]
    source = opened(Kind.clips, pairs)
    source.captions = asking(task, records)
    filler = source.filler()
    assert filler.frames.shape == (2, 3, SIZE, SIZE) and not filler.frames.any() and filler.target == 0
    with pytest.raises(Unreadable, match="p.png: lacks the label 'answer'; it has none") as caught:
        source.sample(0, None)
    assert caught.value.kind == "text"
    source.records[0].labels["answer"] = "yes"
    sample = source.sample(0, None)
    assert (sample.prompt, sample.text, sample.target.item()) == ("both", "", 1)
