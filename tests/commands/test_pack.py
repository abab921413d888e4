import shutil

import pytest
from datasets import call, refusal
from picture_files import save_pictures
from videos import seen

from coca_video.commands.pack import main
from coca_video.data.manifest import ClipRecord, write_manifest
from coca_video.data.shard_frames import shard_frames
from coca_video.data.shard_index import format_idx, index_tar
from coca_video.data.shards import ShardSet


@pytest.fixture
def manifest(tmp_path, coloured_video):
    """A video, a picture, and a video again."""
    shutil.copy(coloured_video, tmp_path / "a.MP4")
    save_pictures(tmp_path, "b.png")
    records = [
        ClipRecord(tmp_path / "a.MP4", "a video", {"action": "jump"}, id="v1", more_texts=["ü"]),
        ClipRecord(tmp_path / "b.png", "a picture"),
        ClipRecord(tmp_path / "a.MP4", "the same video"),
    ]
    write_manifest(tmp_path / "m.jsonl", records)
    return tmp_path / "m.jsonl"


def test_a_manifest_becomes_shards(manifest, tmp_path, capsys):
    output = tmp_path / "shards"
    call(main, manifest, output, "--max-per-shard", 2, "--prefix", "x")
    assert capsys.readouterr().out == f"3 samples in 2 shards: {output}/x-*.tar\n"
    found = ShardSet(output, cache=tmp_path / "cache")
    assert found.sizes == [2, 1]
    assert [record.texts for record in found] == [["a video", "ü"], ["a picture"], ["the same video"]]
    assert found[0].labels == {"action": "jump", "id": "v1"} and found[1].labels == {}
    assert [record.duration for record in found] == [pytest.approx(4.0), None, pytest.approx(4.0)]
    assert seen(shard_frames(found[2], lambda num_frames, seconds: [num_frames - 1])) == [39]
    assert shard_frames(found[1], lambda num_frames, seconds: [0]).shape == (1, 3, 4, 6)
    names = ["x-000000.idx", "x-000000.tar", "x-000001.idx", "x-000001.tar"]
    assert sorted(path.name for path in output.iterdir()) == names
    assert (output / names[0]).read_text() == format_idx(index_tar(output / names[1]))


def test_a_new_set_replaces_the_old(manifest, tmp_path):
    output = tmp_path / "shards"
    call(main, manifest, output, "--max-per-shard", 1)
    call(main, manifest, output)
    assert sorted(path.name for path in output.iterdir()) == ["shard-000000.idx", "shard-000000.tar"]


def test_what_cannot_be_packed(manifest, tmp_path, capsys):
    def refused(*records: ClipRecord, options: tuple = ()) -> str:
        if records:
            write_manifest(manifest, records)
        return refusal(main, manifest, tmp_path / "shards", *options, capsys=capsys)

    assert refused(options=("--max-per-shard", 0)) == "--max-per-shard 0: 1 or more are needed"
    for prefix in ("*", "a/b", "%d", ""):
        assert refused(options=("--prefix", prefix)).startswith(f"--prefix {prefix!r}: letters, digits, '_'")
    assert refused(ClipRecord(tmp_path / "c.mp4", "a")).endswith(
        f"names {tmp_path / 'c.mp4'}, which is no file"
    )
    (tmp_path / "c.ogv").touch()
    assert "c.ogv: cannot be packed; its ending must be one of png, " in refused(
        ClipRecord(tmp_path / "c.ogv", "a")
    )
    span = ClipRecord(tmp_path / "a.MP4", "a", span=[0, 1])
    assert refused(span).endswith("a.MP4 has the field span, which shards cannot hold")
    (tmp_path / "d.mp4").write_bytes(b"broken")
    good = ClipRecord(tmp_path / "a.MP4", "a")
    assert "d.mp4: cut short, damaged or not a video" in refused(good, ClipRecord(tmp_path / "d.mp4", "a"))
    assert list((tmp_path / "shards").iterdir()) == []
