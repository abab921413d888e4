import hashlib
import json
from pathlib import Path

import pytest
from video_sets import save_json, save_videos

from coca_video.data.benchmarks.card import Card, card_path, read_card
from coca_video.data.benchmarks.catalogue import SETS
from coca_video.data.benchmarks.listing import Files, Listing, PublicSet, need_found, split_found
from coca_video.data.benchmarks.preparing import missing_path, prepare, summary
from coca_video.data.manifest import ClipRecord, read_manifest
from coca_video.data.tables import read_json
from coca_video.errors import InputError


def read(files: Files, split: str) -> Listing:
    """Texts by video name."""
    annotation = files.annotation(f"{split}.json")
    records = [ClipRecord(None, text, {}, id=name) for name, text in read_json(annotation).items()]
    paths = [files.media / f"{record.id}.mp4" for record in records]
    found, missing = split_found(records, [path if path.exists() else None for path in paths])
    need_found(found, missing, folder=files.media, where=annotation, example="{}.mp4")
    return Listing(found, missing, [annotation], classes=["x", "y"], notes=["a note"], subsets={"x": 2})


TINY = PublicSet("tiny", "Tiny", "train.json, test.json and *.mp4", {"train": 3, "test": None}, read)


@pytest.fixture
def files(tmp_path) -> Files:
    save_videos(tmp_path / "videos", "a.mp4", "-b.mp4")
    save_json(tmp_path / "train.json", {"a": "one", "-b": "two", "c": "three", "d": "four"})
    return Files(tmp_path, tmp_path / "videos")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_manifest_card_and_missing(files, tmp_path):
    ([(manifest, card)], _) = prepare(TINY, files, splits=[], folder=tmp_path / "out")
    assert manifest == tmp_path / "out" / "tiny-train.jsonl"
    assert [(r.id, r.text) for r in read_manifest(manifest)] == [("a", "one"), ("-b", "two")]
    expected = Card(
        dataset="tiny",
        title="Tiny",
        split="train",
        num_expected=3,
        num_listed=4,
        num_found=2,
        missing=["c", "d"],
        annotations={"train.json": sha256(tmp_path / "train.json")},
        classes=["x", "y"],
        class_ids=["x", "y"],
        subsets={"x": 2},
        notes=["a note"],
        manifest_sha256=sha256(manifest),
    )
    assert card == expected and read_card(manifest) == expected
    assert missing_path(manifest).read_text() == "c\nd\n"
    assert summary(manifest, card) == [
        f"tiny train: 2 found of 4 listed -> {manifest}",
        "  the annotation files list 4, the official number is 3",
        "  2 missing: c, d",
        f"  all of them: {missing_path(manifest)}",
        "  note: a note",
    ]


def test_found_later(files, tmp_path):
    """The list of what is missing goes when nothing is."""
    prepare(TINY, files, splits=["train"], folder=tmp_path / "out")
    save_videos(tmp_path / "videos", "c.mp4", "d.mp4")
    ([(manifest, card)], _) = prepare(TINY, files, splits=["train"], folder=tmp_path / "out")
    assert card.missing == [] and not missing_path(manifest).exists()


def test_a_split_that_was_asked_for_must_be_there(files, tmp_path):
    with pytest.raises(InputError, match="no annotation file; looked for test.json"):
        prepare(TINY, files, splits=["train", "test"], folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_split_at_all(files, tmp_path):
    (tmp_path / "train.json").unlink()
    with pytest.raises(
        InputError, match=r"looked for train.json; tiny needs: train.json, test.json and \*.mp4"
    ):
        prepare(TINY, files, splits=[], folder=tmp_path / "out")


def test_a_split_without_any_video_does_not_stop_the_others(files, tmp_path):
    save_json(tmp_path / "test.json", {"e": "five"})
    ([(manifest, card)], [skipped]) = prepare(TINY, files, splits=[], folder=tmp_path / "out")
    assert card.split == "train" and skipped.startswith("tiny test: left out: ")
    with pytest.raises(InputError, match="videos: none of the 1 files listed is here, such as e.mp4"):
        prepare(TINY, files, splits=["test"], folder=tmp_path / "out")


def test_a_split_whose_labels_are_kept_does_not_stop_the_others(tmp_path):
    """Kinetics-700 and Something-Something are given out so."""
    save_videos(tmp_path / "train" / "abseiling", "a_000001_000011.mp4")
    (tmp_path / "test.csv").write_text("youtube_id,time_start,time_end,split\nb,1,11,test\n")
    files, kinetics = Files(tmp_path, tmp_path), SETS["kinetics700"]
    ([(_, card)], [skipped]) = prepare(kinetics, files, splits=[], folder=tmp_path / "out")
    assert card.split == "train"
    assert skipped.startswith("kinetics700 test: left out: ") and "this split has no labels" in skipped
    with pytest.raises(InputError, match=r"test\.csv: this split has no labels"):
        prepare(kinetics, files, splits=["train", "test"], folder=tmp_path / "out")


def test_a_malformed_split_stops_all(files, tmp_path):
    (tmp_path / "test.json").write_text("[")
    with pytest.raises(InputError, match="test.json: not JSON"):
        prepare(TINY, files, splits=[], folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_table_of_one_s_own_must_be_named(tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "my.csv").write_text("path,caption\na.mp4,one\n")
    save_videos(tmp_path, "a.mp4")
    files = Files(tmp_path, tmp_path)
    with pytest.raises(InputError, match="table: which split"):
        prepare(SETS["table"], files, splits=[], folder=tmp_path / "out")
    ([(manifest, card)], _) = prepare(SETS["table"], files, splits=["lists/my.csv"], folder=tmp_path / "out")
    assert manifest.name == "table-lists-my.jsonl" and card.split == "lists/my.csv"


def test_tables_whose_names_differ_behind_a_dot_make_two_manifests(tmp_path):
    for name in ("my.v1.csv", "my.v2.csv"):
        (tmp_path / name).write_text("path,caption\na.mp4,one\n")
    save_videos(tmp_path, "a.mp4")
    splits = ["my.v1.csv", "my.v2"]
    written, _ = prepare(SETS["table"], Files(tmp_path, tmp_path), splits=splits, folder=tmp_path / "out")
    assert [manifest.name for manifest, _ in written] == ["table-my.v1.jsonl", "table-my.v2.jsonl"]
    assert [card_path(manifest).exists() for manifest, _ in written] == [True, True]


@pytest.mark.parametrize("content", ["[", "[]", json.dumps({"dataset": "x"}), json.dumps({"more": 1})])
def test_a_card_that_is_none(tmp_path, content):
    assert read_card(tmp_path / "m.jsonl") is None
    card_path(tmp_path / "m.jsonl").write_text(content)
    with pytest.raises(InputError, match="m.card.json: not the card of a manifest"):
        read_card(tmp_path / "m.jsonl")
