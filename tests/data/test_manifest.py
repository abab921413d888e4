import json
import os
from pathlib import Path

import pytest

from coca_video.data.manifest import ClipRecord, read_manifest, write_manifest
from coca_video.errors import InputError

GOOD_LINE = '{"path": "a.mp4", "text": "a dog", "labels": {}}'


def test_half_a_character_is_refused(tmp_path):
    path = tmp_path / "clips.jsonl"
    path.write_text(r'{"path": "caf\udce9.mp4", "text": "\ud83d\ude00"}' + "\n")
    (record,) = read_manifest(path)
    assert record.text == "\U0001f600" and os.fsencode(record.path.name) == b"caf\xe9.mp4"
    with open(path, "a") as file:
        file.write(r'{"path": "a.mp4", "text": "x", "labels": {"name": "\uD83D"}}' + "\n")
    with pytest.raises(InputError, match=r"clips.jsonl:2: must be valid Unicode, found .*ud83d. alone"):
        read_manifest(path)


def test_round_trip_with_relative_paths(tmp_path):
    records = [
        ClipRecord(tmp_path / "clips" / "a.mp4", "a dog", {"action": "running"}),
        ClipRecord(tmp_path.parent / "b.mp4", "ein Männchen, \u2028 zweizeilig\n", {}),
    ]
    write_manifest(tmp_path / "all.jsonl", records)

    lines = (tmp_path / "all.jsonl").read_text(encoding="utf-8").split("\n")
    assert json.loads(lines[0]) == {"path": "clips/a.mp4", "text": "a dog", "labels": {"action": "running"}}
    read = read_manifest(tmp_path / "all.jsonl")
    assert read[0] == records[0]
    assert (read[1].text, read[1].path.resolve()) == (records[1].text, records[1].path.resolve())


def test_a_moved_data_set_finds_its_clips(tmp_path):
    (tmp_path / "here").mkdir()
    write_manifest(tmp_path / "here" / "m.jsonl", [ClipRecord(tmp_path / "here" / "a.mp4", "a", {})])
    os.rename(tmp_path / "here", tmp_path / "there")
    assert read_manifest(tmp_path / "there" / "m.jsonl")[0].path == tmp_path / "there" / "a.mp4"


def test_relative_and_absolute_spellings_agree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_manifest("m.jsonl", [ClipRecord(tmp_path / "a.mp4", "a", {})])
    assert read_manifest("m.jsonl")[0].path == Path("a.mp4")


def test_a_failed_write_leaves_the_old_manifest(tmp_path):
    path = tmp_path / "m.jsonl"
    write_manifest(path, [ClipRecord(tmp_path / "a.mp4", "a", {})])
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_manifest(path, [ClipRecord(tmp_path / "a.mp4", "a", {"not": object()})])
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["m.jsonl"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("not json", "not JSON"),
        ("[1]", r"needs the fields path and text, .*; found \[1\]"),
        ('{"path": "a.mp4", "caption": "a"}', "needs the fields path and text, .* found path, caption"),
        ('{"path": "a.mp4", "text": "a", "texts": ["b"]}', "may have labels, id, .* found path, text, texts"),
        (
            '{"path": "a.mp4", "text": "a", "more_texts": "b"}',
            "more_texts must be a list of strings, found 'b'",
        ),
        ('{"path": "a.mp4", "text": "a", "answers": [1]}', r"answers must be a list of strings, found \[1\]"),
        ('{"path": "a.mp4", "text": "a", "more_texts": ["b", ""]}', "more_texts must not hold an empty text"),
        ('{"path": "a.mp4", "text": "a", "id": 3}', "id must be a string, found 3"),
        ('{"path": "a.mp4", "text": "a", "span": [2, 1]}', r"span must be \[start, end\].*found \[2, 1\]"),
        ('{"path": "a.mp4", "text": "a", "span": 2}', "span must be .* found 2"),
        ('{"path": "", "text": "a", "labels": {}}', "path must be a non-empty string, found ''"),
        ('{"path": "a.mp4", "text": 3, "labels": {}}', "text must be a non-empty string, found 3"),
        ('{"path": "a.mp4", "text": "a", "labels": ["x"]}', r"labels must be an object.*found \['x'\]"),
        ('{"path": "a.mp4", "text": "a", "labels": {"n": 1}}', "label 'n' must be a string, found 1"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, found):
    path = tmp_path / "m.jsonl"
    path.write_text(f"{GOOD_LINE}\n\n{line}\n")
    with pytest.raises(InputError, match=rf"m\.jsonl:3: .*{found}"):
        read_manifest(path)


def test_missing_and_empty_manifests(tmp_path):
    with pytest.raises(InputError, match="gone.jsonl: cannot read"):
        read_manifest(tmp_path / "gone.jsonl")
    (tmp_path / "m.jsonl").write_text("\n")
    with pytest.raises(InputError, match="m.jsonl: the manifest is empty"):
        read_manifest(tmp_path / "m.jsonl")
