import os
import pickle
import random
import tarfile
from itertools import islice
from pathlib import Path

import pytest
from shard_processes import open_in_processes, read_in_processes
from tars import pair, write_tar

from coca_video.data import shards
from coca_video.data.shards import (
    PictureRecord,
    ShardRecord,
    ShardSet,
    iterate_pictures,
    read_pictures,
    write_shards,
)
from coca_video.errors import InputError


def make_samples(num_samples: int, *, prefix: str = "s") -> list[PictureRecord]:
    return [
        PictureRecord(f"{prefix}{i:03d}", bytes([i]) * (i + 1), f"Nr. {i} ü", {"code": f"{i:x}"})
        for i in range(num_samples)
    ]


def test_every_sample_once_in_shard_order(tmp_path):
    samples = make_samples(7)
    written = write_shards(tmp_path, samples, max_per_shard=3, prefix="cats")
    assert [path.name for path in written] == ["cats-000000.tar", "cats-000001.tar", "cats-000002.tar"]
    assert sorted(tmp_path.iterdir()) == written
    assert read_pictures(tmp_path) == samples
    assert read_pictures(str(tmp_path / "*-000001.tar")) == samples[3:6]


def test_members_are_plain_png_txt_json(tmp_path):
    write_shards(tmp_path, make_samples(1), max_per_shard=3, prefix="cats")
    with tarfile.open(tmp_path / "cats-000000.tar") as archive:
        contents = {member.name: archive.extractfile(member).read() for member in archive}
    assert contents == {"s000.png": b"\0", "s000.txt": "Nr. 0 ü".encode(), "s000.json": b'{"code": "0"}'}


def test_same_samples_make_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        write_shards(tmp_path / folder, make_samples(2), max_per_shard=3, prefix="cats")
    assert (tmp_path / "a/cats-000000.tar").read_bytes() == (tmp_path / "b/cats-000000.tar").read_bytes()


def test_reading_is_lazy(tmp_path):
    write_shards(tmp_path, make_samples(4), max_per_shard=2, prefix="cats")
    (tmp_path / "cats-000001.tar").write_bytes(b"broken")
    pictures = iterate_pictures(tmp_path)
    assert [next(pictures).key, next(pictures).key] == ["s000", "s001"]
    with pytest.raises(InputError, match="cats-000001.tar: not a readable tar file"):
        next(pictures)


def test_a_new_set_replaces_only_its_own_prefix(tmp_path):
    others = make_samples(1, prefix="other")
    write_shards(tmp_path, others, max_per_shard=1, prefix="cats-x")
    write_shards(tmp_path, make_samples(3), max_per_shard=1, prefix="cats")
    write_shards(tmp_path, make_samples(2), max_per_shard=2, prefix="cats")
    assert read_pictures(tmp_path) == make_samples(2) + others


def test_a_failed_write_leaves_the_old_set(tmp_path):
    def failing():
        yield make_samples(1)[0]
        raise KeyboardInterrupt

    write_shards(tmp_path, make_samples(3), max_per_shard=1, prefix="cats")
    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path, failing(), max_per_shard=1, prefix="cats")
    assert read_pictures(tmp_path) == make_samples(3)
    assert len(os.listdir(tmp_path)) == 3


@pytest.mark.parametrize("name", ["100%d", "a:b", "[x]"])
def test_folders_with_odd_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path / name, make_samples(2), max_per_shard=1, prefix="cats")
    assert read_pictures(name) == make_samples(2)


def test_bad_input_is_named(tmp_path):
    with pytest.raises(InputError, match="no shards found; looked for .*tar"):
        read_pictures(tmp_path)
    with pytest.raises(InputError, match="sample key 'a.b'"):
        write_shards(tmp_path, [PictureRecord("a.b", b"", "", {})], max_per_shard=1, prefix="cats")
    write_tar(tmp_path / "x.tar", {"one.png": b"1", "one.json": b"{}"})
    with pytest.raises(
        InputError, match="x.tar: sample one lacks a text; it needs txt, or json with caption or"
    ):
        read_pictures(tmp_path)
    write_tar(tmp_path / "x.tar", {"one.txt": b"1", "one.json": b"{}"})
    with pytest.raises(
        InputError, match="x.tar: sample one lacks a picture or video; it needs one of png, jpg, jpeg, webp"
    ):
        read_pictures(tmp_path)
    write_tar(tmp_path / "x.tar", {"one.png": b"1", "one.json": b'{"caption": null}'})
    with pytest.raises(InputError, match="x.tar: sample one lacks a text"):
        read_pictures(tmp_path)
    write_tar(tmp_path / "x.tar", {"one.png": b"1", "one.txt": b"a", "one.json": b"[]"})
    with pytest.raises(InputError, match="x.tar: sample one: labels must be an object of strings"):
        read_pictures(tmp_path)
    write_tar(tmp_path / "x.tar", {"one.png": b"1", "one.txt": b"\xff"})
    with pytest.raises(InputError, match="x.tar: sample one: txt must be UTF-8"):
        read_pictures(tmp_path)
    write_tar(tmp_path / "x.tar", {"one.png": b"1", "one.txt": b"", "one.json": b"{"})
    with pytest.raises(InputError, match="x.tar: sample one: txt must be UTF-8 and json valid"):
        read_pictures(tmp_path)
    write_tar(tmp_path / "x.tar", {"one.png": b"1", "one.txt": b"", "one.json": b'{"n": 1}'})
    with pytest.raises(InputError, match="x.tar: sample one: label 'n' must be a string, found 1"):
        read_pictures(tmp_path)


IMG2DATASET = (
    b'{"caption": " a ship", "url": "https://a/b.jpg", "width": 256, "error_message": null, "key": "0"}'
)


def test_shards_of_img2dataset(tmp_path):
    labels = {"url": "https://a/b.jpg", "key": "0"}
    write_tar(
        tmp_path / "00000.tar",
        {
            "000000000.jpg": b"1",
            "000000000.txt": b"a ship\n",
            "000000000.json": IMG2DATASET,
            "000000001.webp": b"2",
            "000000001.json": IMG2DATASET,
            "000000002.JPEG": b"3",
            "000000002.txt": b"alone",
            "000000003.png": b"4",
            "000000003.json": b'{"text": "a text", "n": 3}',
        },
    )
    assert read_pictures(tmp_path) == [
        PictureRecord("000000000", b"1", "a ship", labels, suffix="jpg"),
        PictureRecord("000000001", b"2", "a ship", labels, suffix="webp"),
        PictureRecord("000000002", b"3", "alone", {}, suffix="jpeg"),
        PictureRecord("000000003", b"4", "a text", {}),
    ]


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_any_sample_of_any_shard(tmp_path, cache):
    """3,000 in shards of 700, read in another order, are those that were written."""
    samples = [ShardRecord(f"{i:05d}", b"%d" % i * (i % 9), f"text {i}", {"n": str(i)}) for i in range(3000)]
    write_shards(tmp_path, samples, max_per_shard=700, prefix="x")
    found = ShardSet(tmp_path, cache=cache)
    assert (len(found), found.sizes, found.problems) == (3000, [700, 700, 700, 700, 200], [])
    order = random.Random(0).sample(range(3000), 3000)
    assert [found[i] for i in order] == [samples[i] for i in order]
    assert list(islice(found, 800)) == samples[:800]
    assert list(found.texts()) == [sample.text for sample in samples]
    for i in (-1, 3000):
        with pytest.raises(IndexError, match=f"sample {i} of 3000"):
            found.record(i)


def test_what_is_known_without_reading(tmp_path, cache):
    video = {"b.mp4": b"video", "b.json": b'{"caption": "c"}'}
    write_tar(tmp_path / "x-0.tar", pair("a", "four") | video)
    write_tar(tmp_path / "x-1.tar", {"d/a.txt": "ü".encode()})
    found = ShardSet(tmp_path / "x-*.tar", cache=cache)
    for shard in found.shards:
        os.truncate(shard, 0)
    first, second = (str(tmp_path / f"x-{i}.tar") for i in range(2))
    keys = [f"{first}: sample a", f"{first}: sample b", f"{second}: sample d/a"]
    assert [found.key(i) for i in range(3)] == keys
    assert [found.text_length(i) for i in range(3)] == [4, None, 2]
    assert [found.suffix(i) for i in range(3)] == ["png", "mp4", None]
    versions = [found.version(i) for i in range(3)]
    assert [(each["shard"], each["key"]) for each in versions] == [
        (first, "a"),
        (first, "b"),
        (second, "d/a"),
    ]
    assert versions[0]["version"] != versions[2]["version"]
    with pytest.raises(InputError, match="x-0.tar: has become shorter: no 4 bytes at byte 1536"):
        found.record(0)


def test_empty_shards_among_others(tmp_path, cache):
    for i, members in enumerate(({}, pair("a"), {}, pair("b") | pair("c"), {})):
        write_tar(tmp_path / f"{i}.tar", members)
    found = ShardSet(tmp_path, cache=cache)
    assert found.sizes == [0, 1, 0, 2, 0]
    assert [record.key for record in found] == ["a", "b", "c"]
    assert [ShardSet(tmp_path / "0.tar", cache=cache).sizes, len(ShardSet(tmp_path / "0.tar"))] == [[0], 0]


def test_shards_cut_short_are_told(tmp_path, cache):
    samples = make_samples(6)
    shards = write_shards(tmp_path, samples, max_per_shard=3, prefix="x")
    os.truncate(shards[1], 2 * 3 * 1024 + 100)
    found = ShardSet(tmp_path, cache=cache)
    assert list(found) == samples[:5]
    problem = f"{shards[1]}: cut short after 2 samples, at byte 6244"
    assert [str(each) for each in found.problems] == [problem]
    assert found.problems[0] == (str(shards[1]), "cut short after 2 samples, at byte 6244")
    with pytest.raises(InputError, match="x-000001.tar: cut short after 2 samples"):
        read_pictures(tmp_path)


def test_a_bad_sample_costs_only_itself(tmp_path, cache):
    members = pair("a") | {"b.png": b"1", "b.txt": b" \n"} | {"c.txt": b"no picture"} | pair("d")
    write_tar(tmp_path / "x.tar", members)
    found = ShardSet(tmp_path, cache=cache)
    assert [found[0].key, found[3].key] == ["a", "d"]
    for i, reason in ((1, ": its text is empty"), (2, " lacks a picture or video; it needs one of png, ")):
        with pytest.raises(InputError) as refused:
            found.record(i)
        assert str(refused.value).startswith(found.key(i) + reason) and "\n" not in str(refused.value)
    assert list(found.texts()) == ["a text", "no picture", "a text"]


def test_a_changed_shard_is_indexed_anew(tmp_path, cache):
    write_tar(tmp_path / "x.tar", pair("a"))
    assert len(ShardSet(tmp_path, cache=cache)) == 1
    kept = sorted(cache.iterdir())
    assert len(ShardSet(tmp_path, cache=cache)) == 1 and sorted(cache.iterdir()) == kept
    write_tar(tmp_path / "x.tar", pair("b") | pair("c"))
    assert [record.key for record in ShardSet(tmp_path, cache=cache)] == ["b", "c"]


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("COCA_VIDEO_CACHE", str(tmp_path / "elsewhere"))
    ShardSet(write_tar(tmp_path / "x.tar", pair("a")))
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1
    monkeypatch.delenv("COCA_VIDEO_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    ShardSet(tmp_path / "x.tar")
    assert len(list((tmp_path / "home/.cache/coca_video/shards").iterdir())) == 1


def test_few_files_are_open_at_a_time(tmp_path, cache):
    samples = make_samples(150)
    write_shards(tmp_path, samples, max_per_shard=1, prefix="x")
    found = ShardSet(tmp_path, cache=cache)
    assert [found[i] for i in (*range(150), *range(150))] == samples * 2
    files = [os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()]
    assert sum(file.startswith(str(tmp_path)) for file in files) == 128


def test_a_set_can_be_pickled_when_files_are_open(tmp_path, cache):
    samples = make_samples(4)
    write_shards(tmp_path, samples, max_per_shard=2, prefix="x")
    found = ShardSet(tmp_path, cache=cache)
    assert found[3] == samples[3]
    copied = pickle.loads(pickle.dumps(found))
    assert list(copied) == samples and copied.key(0) == found.key(0)


def test_few_indices_are_in_memory(tmp_path, cache, monkeypatch):
    """Where samples lie is read again as it is needed, and goes to no other process."""
    monkeypatch.setattr(shards, "MAX_INDICES", 3)
    samples = make_samples(20)
    write_shards(tmp_path, samples, max_per_shard=2, prefix="x")
    for _ in range(2):  # the second one reads no index
        found = ShardSet(tmp_path, cache=cache)
        assert (found.sizes, found.problems, len(found._indices)) == ([2] * 10, [], 0)
        assert list(found) == samples and len(found._indices) == 3
        copied = pickle.loads(pickle.dumps(found))
        assert copied[7] == samples[7] and len(copied._indices) == 1


def test_indices_stay_in_memory_where_they_cannot_be_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "MAX_INDICES", 3)
    samples = make_samples(20)
    write_shards(tmp_path, samples, max_per_shard=2, prefix="x")
    (tmp_path / "file").touch()
    found = ShardSet(tmp_path, cache=tmp_path / "file" / "below")
    assert len(found._indices) == 10
    assert list(pickle.loads(pickle.dumps(found))) == samples


def test_a_shard_that_changes_under_a_run_is_told(tmp_path, cache):
    """The index that was made before is gone too: the new one is of other samples."""
    write_shards(tmp_path, make_samples(4), max_per_shard=2, prefix="x")
    found = pickle.loads(pickle.dumps(ShardSet(tmp_path, cache=cache)))
    write_tar(tmp_path / "x-000001.tar", pair("other"))
    for file in cache.glob("*.index"):
        file.unlink()
    assert found[1].key == "s001"
    for _ in range(2):
        with pytest.raises(InputError, match="x-000001.tar: has changed: 1 samples, it had 2$"):
            found.record(2)


def test_paths_that_are_no_utf8(tmp_path, cache):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    write_shards(folder, make_samples(3), max_per_shard=2, prefix="x")
    assert list(ShardSet(folder, cache=cache)) == make_samples(3)


def test_several_processes_read_at_once(tmp_path, cache):
    """Processes that make the same index and the same copies, and forks that inherit open files."""
    samples = [ShardRecord(f"{i:05d}", b"%d" % i * 300, f"text {i}", {}) for i in range(300)]
    write_shards(tmp_path / "shards", samples, max_per_shard=100, prefix="x")
    texts = [sample.text for sample in samples]
    open_in_processes(f"file://{tmp_path}/shards", cache=cache, texts=texts)
    assert len(list((cache / "copies").glob("*.copy"))) == 3
    assert not list(cache.rglob("*.part"))
    found = ShardSet(tmp_path / "shards", cache=cache)
    assert found[0] == samples[0]
    read_in_processes(found, texts=texts)
    assert list(found) == samples


def test_videos_texts_and_seconds_are_written_and_read(tmp_path, cache):
    records = [
        ShardRecord("a", b"video", "one", {"action": "jump"}, "mp4", ["two", "three"], duration=2.5),
        ShardRecord("b", b"picture", "one", {}, "webp"),
    ]
    write_shards(tmp_path, records, max_per_shard=5, prefix="x")
    found = ShardSet(tmp_path, cache=cache)
    assert list(found) == records
    assert [record.is_video for record in found] == [True, False]
    assert found[0].name == found.key(0)
    with pytest.raises(InputError, match="sample key 'c': a label must not be named 'text', as texts are"):
        write_shards(tmp_path, [ShardRecord("c", b"", "", {"text": ""})], max_per_shard=1, prefix="y")
