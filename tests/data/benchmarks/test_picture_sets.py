from pathlib import Path

import pytest
from picture_files import save_pictures

from coca_video.data.benchmarks.listing import MissingAnnotation
from coca_video.data.benchmarks.picture_sets import (
    class_folders,
    need_id,
    need_number,
    need_text,
    pictures_in,
)
from coca_video.errors import InputError


def test_ids_are_strings_whatever_the_file_has():
    assert [need_id(value, where="f") for value in (7, "007", "-a", 0)] == ["7", "007", "-a", "0"]
    for wrong in (None, "", True, 1.5, [], {}):
        with pytest.raises(InputError, match="f: expected an id, a number or a string, found"):
            need_id(wrong, where="f")


def test_numbers_and_texts():
    assert [need_number(value, where="f") for value in (7, "007")] == [7, 7]
    for wrong in (-1, "1.5", "²", "x", None):
        with pytest.raises(InputError, match="^f: expected "):
            need_number(wrong, where="f")
    assert need_text(" a b\n", where="f") == "a b"
    with pytest.raises(InputError, match="f: expected a text, found '  '"):
        need_text("  ", where="f")


def find(media: Path, **options) -> Path:
    return class_folders(media, {"fox", "cat"}.__contains__, called="val", example="fox", **options)


def test_folders_of_classes(tmp_path):
    save_pictures(tmp_path, "deep/er/still/train/fox/a.png", "fox.png", ".hidden/fox/a.png")
    assert find(tmp_path) == tmp_path / "deep/er/still/train"
    with pytest.raises(
        MissingAnnotation, match="no folders of classes, such as fox, in one whose name fits val"
    ):
        find(tmp_path, must=True)
    save_pictures(tmp_path, "Val/cat/a.png")
    assert find(tmp_path) == find(tmp_path, must=True) == tmp_path / "Val"
    assert find(tmp_path / "Val") == tmp_path / "Val"


def test_pictures_of_a_folder(tmp_path):
    save_pictures(tmp_path, "b.JPEG", "a.b.png", ".c.png", "folder/d.png")
    (tmp_path / "notes.txt").write_text("no picture")
    assert [path.name for path in pictures_in(tmp_path)] == ["a.b.png", "b.JPEG"]
