import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import pair, write_tar

from coca_video.data.shard_index import (
    Outline,
    ShardIndex,
    cached_index,
    cached_outlines,
    format_idx,
    index_file,
    index_tar,
    read_idx,
)
from coca_video.errors import InputError

TEN = {name: content for i in range(10) for name, content in pair(f"s{i}", f"text {i}").items()}


def contents(path: Path, index: ShardIndex) -> list[tuple[str, dict[str, bytes]]]:
    """Every sample: its key and its members' contents, read where the index says."""
    whole = path.read_bytes()
    return [
        (index.key(i), {s: whole[at.offset : at.offset + at.size] for s, at in index.members(i).items()})
        for i in range(len(index))
    ]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_member_lies_where_the_index_says(tmp_path, format):
    folder = "a.folder/" + "long/" * 25
    members = {
        "a.folder/": b"",
        f"{folder}one.jpg": b"1" * 700,
        f"{folder}one.seg.png": b"",
        f"{folder}one.txt": b"first",
        "./two.TXT": b"second" * 200,
        "./two.mp4": b"2" * 512,
    }
    if format != tarfile.USTAR_FORMAT:
        members |= {f"{'n' * 300}ü.png": b"3", f"{'n' * 300}ü.txt": b"third"}
    path = write_tar(tmp_path / "x.tar", members, format=format)
    index = index_tar(path)
    assert index.problem is None
    found = contents(path, index)
    assert found[:2] == [
        (f"{folder}one", {"jpg": b"1" * 700, "seg.png": b"", "txt": b"first"}),
        ("./two", {"txt": b"second" * 200, "mp4": b"2" * 512}),
    ]
    assert found[2:] == ([(f"{'n' * 300}ü", {"png": b"3", "txt": b"third"})] if len(members) > 6 else [])


def test_a_file_of_no_sample_is_passed_over(tmp_path):
    members = {".hidden": b"1", "README": b"2", "__info__": b"3", "__meta__/a.png": b"4", "a.b/README": b"5"}
    path = write_tar(tmp_path / "x.tar", members | pair("one"))
    assert contents(path, index_tar(path)) == [("one", {"png": b"picture", "txt": b"a text"})]


def test_links_and_global_headers_are_passed_over(tmp_path):
    with tarfile.open(
        tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "c" * 600}
    ) as archive:
        for name, kind in (("one.png", tarfile.REGTYPE), ("one.lnk", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "t" * 300
            info.size = 3 if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"abc"))
    index = index_tar(tmp_path / "x.tar")
    assert contents(tmp_path / "x.tar", index) == [("one", {"png": b"abc"})]


def test_sizes_that_octal_digits_cannot_say(tmp_path):
    """9 GiB, in a file of holes."""
    size = 9 * 2**30
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        big, small = tarfile.TarInfo("one.mp4"), tarfile.TarInfo("one.txt")
        big.size, small.size = size, 3
        headers = [info.tobuf(format) for info in (big, small)]
        with open(tmp_path / "x.tar", "wb") as file:
            file.write(headers[0])
            file.seek(size, io.SEEK_CUR)
            file.write(headers[1] + b"abc" + bytes(509) + bytes(1024))
        index = index_tar(tmp_path / "x.tar")
        start = len(headers[0])
        assert index.members(0) == {"mp4": (start, size), "txt": (start + size + len(headers[1]), 3)}
        assert index.problem is None


def test_equal_keys(tmp_path):
    """In a row they are two samples if a suffix repeats; apart they are two samples anyway."""
    members = [*pair("a", "1").items(), *pair("a", "2").items(), *pair("b").items(), *pair("a", "3").items()]
    path = write_tar(tmp_path / "x.tar", members)
    found = contents(path, index_tar(path))
    assert [(key, sample["txt"]) for key, sample in found] == [
        ("a", b"1"),
        ("a", b"2"),
        ("b", b"a text"),
        ("a", b"3"),
    ]


# Each member of TEN takes 1,024 bytes: header and content. Sample 3 begins at byte 6,144.
@pytest.mark.parametrize(
    ("end", "num_samples"),
    [
        (0, 0),
        (512 + 3, 0),  # in the first content
        (6144, 3),  # between two samples
        (6144 + 300, 3),  # in the header of a sample's first member
        (6144 + 514, 3),  # in its content
        (6144 + 1024, 3),  # between two members
        (6144 + 1024 + 300, 3),  # in the header of the second
        (6144 + 1024 + 514, 3),  # in its content
        (6144 + 1024 + 519, 4),  # in what fills up its last block
        (20480, 10),  # before the end blocks
        (20480 + 100, 10),  # in them
    ],
)
def test_a_shard_cut_short_keeps_its_whole_samples(tmp_path, end, num_samples):
    path = write_tar(tmp_path / "x.tar", TEN)
    whole = contents(path, index_tar(path))
    path.write_bytes(path.read_bytes()[:end])
    index = index_tar(path)
    assert contents(path, index) == whole[:num_samples]
    assert index.problem == f"cut short after {num_samples} samples, at byte {end}"


@settings(deadline=None, max_examples=50)
@given(end=st.integers(0, 20479))
def test_wherever_it_is_cut(tmp_path_factory, end):
    folder = tmp_path_factory.mktemp("cut")
    path = write_tar(folder / "x.tar", TEN)
    whole = contents(path, index_tar(path))
    path.write_bytes(path.read_bytes()[:end])
    try:
        index = index_tar(path)
    except InputError as error:
        assert 0 < end < 512 and "not a readable tar file" in str(error)
        return
    assert index.problem.endswith(f"at byte {end}")
    assert contents(path, index) == whole[: len(index)]
    # The first sample has none before it that tells what it should have.
    assert len(index) >= end // 2048 or 2048 <= end < 2560


def test_a_sample_whose_neighbour_is_cut_is_whole_whatever_it_has(tmp_path):
    path = write_tar(tmp_path / "x.tar", {"a.png": b"1", "a.txt": b"1", "b.jpg": b"1", **pair("c")})
    path.write_bytes(path.read_bytes()[: 3 * 1024 + 514])
    index = index_tar(path)
    assert [index.key(i) for i in range(len(index))] == ["a", "b"]


def test_damage_in_the_middle(tmp_path):
    path = write_tar(tmp_path / "x.tar", TEN)
    content = bytearray(path.read_bytes())
    content[6144:6148] = b"oops"
    path.write_bytes(content)
    index = index_tar(path)
    assert (len(index), index.problem) == (3, "damaged after 3 samples, at byte 6144")


def test_a_size_below_zero_is_damage(tmp_path):
    """With one of -512 bytes the next header would be the same one again, for ever."""
    path = write_tar(tmp_path / "x.tar", TEN)
    content = bytearray(path.read_bytes())
    header = content[6144:6656]
    header[124:136], header[148:156] = b"-1000".ljust(12, b"\0"), b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content[6144:6656] = header
    path.write_bytes(content)
    index = index_tar(path)
    assert (len(index), index.problem) == (3, "damaged after 3 samples, at byte 6144")


def test_shards_without_samples(tmp_path):
    path = write_tar(tmp_path / "x.tar", {})
    assert (len(index_tar(path)), index_tar(path).problem) == (0, None)
    path.write_bytes(b"")
    assert index_tar(path).problem == "cut short after 0 samples, at byte 0"


@pytest.mark.parametrize("content", [b"broken", b"\x1f\x8b" + bytes(2000), b"<html>" * 300])
def test_what_is_no_tar_file(tmp_path, content):
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(InputError, match=r"x.tar: not a readable tar file: it begins with b'"):
        index_tar(tmp_path / "x.tar")
    with open(tmp_path / "x.tar", "rb") as file:
        with pytest.raises(InputError, match=r"^s3://b/x.tar: not a readable tar file"):
            index_file(file, name="s3://b/x.tar")
    with pytest.raises(InputError, match="y.tar: cannot read this shard .No such file"):
        index_tar(tmp_path / "y.tar")


def test_samples_take_little_memory(tmp_path):
    members = ((f"{i:08d}.{suffix}", b"x") for i in range(1000) for suffix in ("png", "txt", "json"))
    index = index_tar(write_tar(tmp_path / "x.tar", members))
    assert [index.key(i) for i in (0, 777, 999)] == ["00000000", "00000777", "00000999"]
    arrays = [value for value in vars(index).values() if isinstance(value, np.ndarray)]
    assert sum(array.nbytes for array in arrays) <= 50 * 1000


def test_an_index_is_made_once_and_kept(tmp_path):
    path, made = write_tar(tmp_path / "x.tar", TEN), []

    def make() -> ShardIndex:
        made.append(1)
        return index_tar(path)

    def ask(version: str, folder: str = "cache") -> ShardIndex:
        return cached_index(str(path), version=version, make=make, folder=tmp_path / folder)

    first, again = ask("1"), ask("1")
    assert len(made) == 1 and contents(path, again) == contents(path, first) and len(again) == 10
    ask("2")
    assert len(made) == 2
    # A file in the cache that is not what was written there counts for nothing.
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    assert contents(path, ask("1")) == contents(path, first) and len(made) == 3
    # A cache that cannot be written to is no error.
    (tmp_path / "file").touch()
    assert contents(path, ask("1", "file/below")) == contents(path, first) and len(made) == 4


def test_outlines_of_many_shards_are_kept_together(tmp_path):
    outlines, made = [Outline(3, None), Outline(0, "cut short")], []
    versions = [("a.tar", "1"), ("b.tar", "1")]

    def ask(versions: list[tuple[str, str]]) -> list[Outline]:
        return cached_outlines(versions, make=lambda: made.append(1) or outlines, folder=tmp_path)

    assert ask(versions) == ask(versions) == outlines and len(made) == 1
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    assert ask(versions) == outlines and len(made) == 2
    assert ask([("a.tar", "1"), ("b.tar", "2")]) == outlines and len(made) == 3


def test_a_problem_is_kept_with_the_index(tmp_path):
    path = write_tar(tmp_path / "x.tar", TEN)
    path.write_bytes(path.read_bytes()[:3000])
    index = index_tar(path)
    assert ShardIndex.from_bytes(index.to_bytes()).problem == index.problem
    assert index.problem == "cut short after 1 samples, at byte 3000"
    assert ShardIndex.from_bytes(b"something else") is None


def test_index_files_of_dali(tmp_path):
    text = "v1.2 2\njpg 1536 8422 000.jpg txt 10752 12 000.txt\njpg 12288 9120 001.jpg txt 22016 30 001.txt\n"
    index = read_idx(text, size=30_000)
    assert [index.key(i) for i in range(2)] == ["000", "001"]
    assert index.members(1) == {"jpg": (12288, 9120), "txt": (22016, 30)}
    assert format_idx(index) == text
    assert read_idx(text, size=22_040) is None  # of another shard
    for other in ("v1.1 1\njpg 1536 8422\n", text.replace("v1.2 2", "v1.2 3"), text + "x", ""):
        assert read_idx(other, size=None) is None
    assert read_idx("v1.2 1\njpg 1536 8422 a b.jpg\n", size=None) is None
