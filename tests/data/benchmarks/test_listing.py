import pytest

from coca_video.data.benchmarks.listing import (
    MediaIndex,
    need_found,
    need_split,
    split_found,
    without_ending,
    without_repeats,
)
from coca_video.data.manifest import ClipRecord
from coca_video.errors import InputError


def put(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_files_are_found_by_path_by_folder_and_by_name(tmp_path):
    put(tmp_path, "a/b/x.mp4", "a/c/x.mp4", "a/-7.v2.MKV", "a/x.txt")
    index = MediaIndex(tmp_path)
    found = {name: index.find(name) for name in ("a/c/x.mp4", "c/x", "c/x.webm", "x", "z/x", "-7.v2", "y")}
    assert {name: path and path.relative_to(tmp_path).as_posix() for name, path in found.items()} == {
        "a/c/x.mp4": "a/c/x.mp4",
        "c/x": "a/c/x.mp4",
        "c/x.webm": "a/c/x.mp4",
        "x": "a/b/x.mp4",
        "z/x": "a/b/x.mp4",
        "-7.v2": "a/-7.v2.MKV",
        "y": None,
    }
    assert list(index.by_path) == ["a/-7.v2.MKV", "a/b/x.mp4", "a/c/x.mp4"]


def test_earlier_folders_win_and_missing_ones_hold_nothing(tmp_path):
    put(tmp_path, "first/x.mp4", "second/x.mp4", "second/y.mp4")
    index = MediaIndex(tmp_path / "none", tmp_path / "first", tmp_path / "second")
    assert index.find("x") == tmp_path / "first/x.mp4" and index.find("y") == tmp_path / "second/y.mp4"


def test_links_are_followed_once_hidden_files_and_dead_links_are_not_seen(tmp_path):
    put(tmp_path, "elsewhere/x.mp4", "media/._x.mp4")
    (tmp_path / "media/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "media/round").symlink_to(tmp_path / "media")
    (tmp_path / "media/dead.mp4").symlink_to(tmp_path / "gone.mp4")
    assert list(MediaIndex(tmp_path / "media").by_path) == ["linked/x.mp4"]


def test_only_endings_of_media_are_taken_off():
    assert [without_ending(name) for name in ("a/b.mp4", "b.JPG", "b.c_3", "b")] == ["a/b", "b", "b.c_3", "b"]


def test_found_and_missing(tmp_path):
    records = [ClipRecord(tmp_path, "a", id="1"), ClipRecord(tmp_path, "b", id="2")]
    found, missing = split_found(records, [None, tmp_path / "2.mp4"])
    assert [record.path for record in found] == [tmp_path / "2.mp4"] and missing == ["1"]
    need_found(found, missing, folder=tmp_path, where=tmp_path)
    with pytest.raises(InputError, match=r"none of the 2 files listed is here, such as 1\.mp4"):
        need_found([], ["1", "2"], folder=tmp_path, where=tmp_path, example="{}.mp4")
    with pytest.raises(InputError, match=r"val\.csv: lists nothing of this split"):
        need_found([], [], folder=tmp_path, where=tmp_path / "val.csv")


def test_repeats_are_told_apart(tmp_path):
    texts = [("1", "a"), ("2", "b"), ("1", "a"), ("2", "c")]
    records, notes = without_repeats(
        [ClipRecord(tmp_path, text, id=id) for id, text in texts], where=tmp_path
    )
    assert [record.text for record in records] == ["a", "b"]
    assert notes[0].endswith("1 listed twice: 1") and notes[1].endswith("the first counts: 2")


def test_unknown_splits_name_the_known():
    need_split("val", ["train", "val"])
    with pytest.raises(InputError, match="no split 'dev'; this set has train, val"):
        need_split("dev", ["train", "val"])
