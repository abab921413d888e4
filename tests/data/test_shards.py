import io
import os
import tarfile

import pytest

from coca_video.data.shards import PictureRecord, iterate_pictures, read_pictures, write_shards
from coca_video.errors import InputError


def make_samples(num_samples: int, *, prefix: str = "s") -> list[PictureRecord]:
    return [
        PictureRecord(f"{prefix}{i:03d}", bytes([i]) * (i + 1), f"Nr. {i} ü", {"code": f"{i:x}"})
        for i in range(num_samples)
    ]


def write_tar(path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


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
        InputError, match="x.tar: sample one lacks a picture; it needs one of png, jpg, jpeg, webp"
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
        PictureRecord("000000000", b"1", "a ship", labels),
        PictureRecord("000000001", b"2", "a ship", labels),
        PictureRecord("000000002", b"3", "alone", {}),
        PictureRecord("000000003", b"4", "a text", {}),
    ]
