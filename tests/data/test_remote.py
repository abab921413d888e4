import os
import time
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from tars import pair, write_tar

from coca_video.data import remote
from coca_video.data.remote import Facts, expand, expand_braces, facts, local_copy, read_text
from coca_video.data.shard_index import format_idx, index_tar
from coca_video.data.shards import ShardSet
from coca_video.errors import InputError


@pytest.fixture
def bucket():
    """A folder of a file system in memory: `memory://bucket`."""
    files = fsspec.filesystem("memory")
    files.makedirs("/bucket", exist_ok=True)
    yield files
    files.rm("/bucket", recursive=True)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))


class FailingFiles(MemoryFileSystem):
    """Fails as often as `failures` says, then works, slowly; None: half of a file comes, without an error."""

    protocol = "failing"
    cachable = False
    failures: list[Exception | None] = []
    num_downloads = 0

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("failing://", "memory://"))

    def get_file(self, rpath, lpath, **kwargs):
        if self.failures:
            with open(lpath, "wb") as file:
                file.write(b"half")
            if failure := self.failures.pop():
                raise failure
            return
        time.sleep(0.05)
        FailingFiles.num_downloads += 1
        super().get_file(rpath, lpath, **kwargs)


@pytest.fixture
def failures(bucket):
    fsspec.register_implementation("failing", FailingFiles, clobber=True)
    FailingFiles.failures, FailingFiles.num_downloads = [], 0
    return FailingFiles.failures


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("plain", "plain"),
        ("a{08..10}", "a08 a09 a10"),
        ("a{8..10}", "a8 a9 a10"),
        ("{000000..000002}.tar", "000000.tar 000001.tar 000002.tar"),
        ("{3..1}", "1 2 3"),
        ("{x,y}{0..1}", "x0 x1 y0 y1"),
        ("{a,b{0..1}}", "a b0 b1"),
        ("{,s}x", "x sx"),
        ("{}{x}{1..}", "{}{x}{1..}"),
        ("{x}{1..2}", "{x}1 {x}2"),
    ],
)
def test_braces(pattern, expected):
    assert sorted(set(expand_braces(pattern))) == sorted(expected.split(" "))


def test_what_patterns_name(tmp_path, monkeypatch):
    names = [f"x-{i:02d}.tar" for i in range(8, 12)]
    for name in (*names, "y.tar", "x-08.idx"):
        (tmp_path / name).touch()
    paths = [str(tmp_path / name) for name in names]
    other = str(tmp_path / "y.tar")
    assert expand(tmp_path) == [*paths, other]
    assert expand(tmp_path / "x-*.tar") == paths
    assert expand(f"{tmp_path}/x-{{08..11}}.tar") == paths
    assert expand(f"{tmp_path}/{{y,x-1*,y}}.tar") == [*paths[2:], other]
    assert expand(tmp_path / "y.tar") == [other]
    monkeypatch.chdir(tmp_path)
    assert expand("{x-09,y}.tar") == [paths[1], other]
    assert expand("file://" + other) == ["file://" + other]


@pytest.mark.parametrize("name", ["a{0..1}", "[x]", "a:b", "100%"])
def test_a_folder_is_its_name(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "z.tar").touch()
    assert expand(tmp_path / name) == [str(tmp_path / name / "z.tar")]


def test_patterns_that_name_nothing(tmp_path):
    (tmp_path / "x-0.tar").touch()
    with pytest.raises(InputError, match=r"no shards found; looked for .*/nothing-\*.tar$"):
        expand(tmp_path / "nothing-*.tar")
    with pytest.raises(InputError, match=r"x-\{0..2\}.tar: no shards found; looked for .*/x-1.tar$"):
        expand(f"{tmp_path}/x-{{0..2}}.tar")


def test_addresses(bucket):
    for name in ("x-0.tar", "x-1.tar", "x-1.idx", "deep/z.tar"):
        bucket.pipe(f"/bucket/{name}", b"content")
    both = ["memory:///bucket/x-0.tar", "memory:///bucket/x-1.tar"]
    assert expand("memory://bucket") == expand("memory://bucket/") == both
    assert expand("memory://bucket/x-*.tar") == both
    braces = expand("memory://bucket/x-{0..1}.tar")
    assert braces == ["memory://bucket/x-0.tar", "memory://bucket/x-1.tar"]
    assert expand("https://host/x.tar?token=a") == ["https://host/x.tar?token=a"]
    with pytest.raises(InputError, match="memory://bucket/y-.*: no shards found"):
        expand("memory://bucket/y-*.tar")


def test_schemes_that_cannot_be_had():
    with pytest.raises(InputError, match="^nosuch://x/y.tar: not an address that fsspec understands"):
        facts("nosuch://x/y.tar")
    # Of the many schemes of fsspec this is the least likely to be installed.
    with pytest.raises(InputError, match="^dropbox://x/.*: needs a package that is not installed: .*dropbox"):
        expand("dropbox://x/*.tar")


def test_facts(bucket, tmp_path):
    bucket.pipe("/bucket/x.tar", b"content")
    first = facts("memory://bucket/x.tar")
    assert first.size == 7 and first == facts("memory://bucket/x.tar")
    bucket.pipe("/bucket/x.tar", b"another")
    assert facts("memory://bucket/x.tar").version != first.version
    (tmp_path / "x.tar").write_bytes(b"content")
    local = facts(str(tmp_path / "x.tar"))
    assert local.size == 7 and isinstance(local, Facts)
    os.utime(tmp_path / "x.tar", ns=(1, 1))
    assert facts(str(tmp_path / "x.tar")).version != local.version
    with pytest.raises(InputError, match="^memory://bucket/y.tar: no such file$"):
        facts("memory://bucket/y.tar")
    with pytest.raises(InputError, match="y.tar: cannot read this shard .No such file"):
        facts(str(tmp_path / "y.tar"))


def test_a_copy_is_made_once(bucket, tmp_path):
    bucket.pipe("/bucket/x.tar", b"content")
    first = local_copy("memory://bucket/x.tar", tmp_path, 100, version="1")
    assert first.read_bytes() == b"content"
    bucket.pipe("/bucket/x.tar", b"another")
    assert local_copy("memory://bucket/x.tar", tmp_path, 100, version="1") == first
    assert first.read_bytes() == b"content"
    assert local_copy("memory://bucket/x.tar", tmp_path, 100, version="2").read_bytes() == b"another"


def test_copies_used_least_recently_make_room(bucket, tmp_path):
    copies = {}
    for i in range(4):
        bucket.pipe(f"/bucket/{i}.tar", bytes(40))
        copies[i] = local_copy(f"memory://bucket/{i}.tar", tmp_path, 120)
        os.utime(copies[i], ns=(i, i))
        if i == 2:  # the first is used again, and has been there longest
            local_copy("memory://bucket/0.tar", tmp_path, 120)
    assert [copies[i].exists() for i in range(4)] == [True, False, True, True]
    os.utime(copies[3], ns=(3, 3))
    # One that is in use stays, and so does the new one where it alone is too large.
    local_copy("memory://bucket/1.tar", tmp_path, 1, keep={copies[2]})
    assert [copies[i].exists() for i in range(4)] == [False, True, True, False]


def test_what_an_interrupted_download_left_is_removed_in_time(bucket, tmp_path):
    bucket.pipe("/bucket/x.tar", b"content")
    old, new = tmp_path / "a.copy.1.part", tmp_path / "b.copy.2.part"
    for file in (old, new):
        file.touch()
    os.utime(old, (0, time.time() - 2 * 24 * 3600))
    local_copy("memory://bucket/x.tar", tmp_path, 100)
    assert (old.exists(), new.exists()) == (False, True)


def test_what_a_killed_process_left_of_a_copy_is_removed_with_the_next_try(bucket, tmp_path):
    bucket.pipe("/bucket/x.tar", b"content")
    copy = local_copy("memory://bucket/x.tar", tmp_path, 100)
    left = copy.with_name(f"{copy.name}.1.part")
    copy.rename(left)
    assert local_copy("memory://bucket/x.tar", tmp_path, 100).read_bytes() == b"content"
    assert not left.exists()


def test_three_tries(bucket, tmp_path, failures):
    bucket.pipe("/bucket/x.tar", b"content")
    failures += [ConnectionError("reset"), RuntimeError("503")]
    assert local_copy("failing://bucket/x.tar", tmp_path, 100).read_bytes() == b"content"
    failures += [ConnectionError("reset\nby peer")] * 3
    with pytest.raises(
        InputError, match=r"^failing://bucket/x.tar: cannot be read in 3 tries .reset by peer"
    ):
        local_copy("failing://bucket/x.tar", tmp_path, 100, version="2")
    outage = FileNotFoundError("x.tar")  # as fsspec raises it for web servers
    outage.__cause__ = ConnectionError("refused")
    failures += [outage] * 3
    with pytest.raises(InputError, match=r"^failing://bucket/x.tar: cannot be read in 3 tries .refused.$"):
        local_copy("failing://bucket/x.tar", tmp_path, 100, version="2")
    failures += [PermissionError("no")]
    with pytest.raises(InputError, match="^failing://bucket/x.tar: no permission to read it$"):
        local_copy("failing://bucket/x.tar", tmp_path, 100, version="2")
    assert [file.suffix for file in tmp_path.iterdir() if file.suffix != ".lock"] == [".copy"]


def test_half_a_file_is_tried_again(bucket, tmp_path, failures):
    bucket.pipe("/bucket/x.tar", b"content")
    failures += [None, None]
    assert local_copy("failing://bucket/x.tar", tmp_path, 100).read_bytes() == b"content"
    failures += [None, None, None]
    with pytest.raises(InputError, match="cannot be read in 3 tries .4 of 7 bytes came"):
        local_copy("failing://bucket/x.tar", tmp_path, 100, version="2")


def test_one_download_for_all_who_want_the_same(bucket, tmp_path, failures):
    bucket.pipe("/bucket/x.tar", b"content")
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(local_copy, "failing://bucket/x.tar", tmp_path, 100) for _ in range(4)]
    assert {each.result().read_bytes() for each in asked} == {b"content"}
    assert FailingFiles.num_downloads == 1


def test_a_folder_that_cannot_hold_copies(bucket, tmp_path):
    bucket.pipe("/bucket/x.tar", b"content")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/below: cannot hold copies of remote shards"):
        local_copy("memory://bucket/x.tar", tmp_path / "file" / "below", 100)


def test_small_texts(bucket):
    bucket.pipe("/bucket/x.idx", "ü".encode())
    bucket.pipe("/bucket/y.idx", b"\xff")
    assert read_text("memory://bucket/x.idx") == "ü"
    assert read_text("memory://bucket/y.idx") is None
    assert read_text("memory://bucket/z.idx") is None


def test_a_set_of_remote_shards(bucket, tmp_path):
    for i in range(3):
        path = write_tar(tmp_path / "x.tar", pair(f"a{i}", f"text {i}") | pair(f"b{i}"))
        bucket.pipe(f"/bucket/x-{i}.tar", path.read_bytes())
    found = ShardSet("memory://bucket/x-{0..2}.tar", cache=tmp_path / "cache", max_bytes=1)
    assert found.sizes == [2, 2, 2] and found.key(1) == "memory://bucket/x-0.tar: sample b0"
    # All of its copies but the last had to make room; those it has open stay.
    assert len(list((tmp_path / "cache/copies").glob("*.copy"))) == 1
    assert [found[i].text for i in (0, 4, 2, 0)] == ["text 0", "text 2", "text 1", "text 0"]
    assert len(list((tmp_path / "cache/copies").glob("*.copy"))) == 3


def test_an_index_beside_a_remote_shard_saves_the_download(bucket, tmp_path):
    path = write_tar(tmp_path / "x.tar", pair("a") | pair("b"))
    bucket.pipe("/bucket/x.tar", path.read_bytes())
    bucket.pipe("/bucket/x.idx", format_idx(index_tar(path)).encode())
    found = ShardSet("memory://bucket", cache=tmp_path / "cache")
    assert len(found) == 2 and not (tmp_path / "cache/copies").exists()
    assert found[1].key == "b" and (tmp_path / "cache/copies").exists()
    # One of another shard counts for nothing.
    bucket.pipe("/bucket/x.tar", write_tar(path, pair("c")).read_bytes()[:2048])
    bucket.pipe("/bucket/x.idx", b"v1.2 1\npng 512 7 c.png txt 1536 9999 c.txt\n")
    assert [record.key for record in ShardSet("memory://bucket", cache=tmp_path / "cache")] in ([], ["c"])


def test_a_remote_shard_that_is_no_tar_file(bucket, tmp_path):
    bucket.pipe("/bucket/x.tar", b"<html>" * 300)
    with pytest.raises(InputError, match="^memory://bucket/x.tar: not a readable tar file"):
        ShardSet("memory://bucket/x.tar", cache=tmp_path)
