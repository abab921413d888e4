import json

import pytest
from picture_files import save_pictures
from spoiling import HARMLESS
from video_sets import read_set

from coca_video.data.benchmarks.listing import Files
from coca_video.data.benchmarks.nlvr2 import SETS
from coca_video.errors import InputError

(NLVR2,) = SETS


def entry(identifier: object, label: object = "True", **changes) -> dict:
    return {"identifier": identifier, "sentence": " One, two.", "label": label, "writer": "1"} | changes


def write(root, *entries: object) -> None:
    (root / "dev.json").write_text("".join(json.dumps(each) + "\n" for each in entries))


@pytest.fixture
def root(tmp_path):
    write(tmp_path, entry("dev-850-0-0"), entry("dev-850-1-0", "False"), entry("dev-850-0-1"))
    save_pictures(tmp_path, *(f"dev/dev-850-{pair}-img{side}.png" for pair in (0, 1) for side in (0, 1)))
    return tmp_path


def test_pairs_and_the_groups_of_their_sentences(root):
    listing = read_set(NLVR2, root, "dev")
    assert [record.id for record in listing.records] == ["dev-850-0-0", "dev-850-1-0", "dev-850-0-1"]
    assert [record.labels["group"] for record in listing.records] == ["dev-850-0", "dev-850-0", "dev-850-1"]
    assert [record.labels["answer"] for record in listing.records] == ["True", "False", "True"]
    second = listing.records[1]
    assert second.text == "One, two."
    assert (second.path.name, second.second_path.name) == ("dev-850-1-img0.png", "dev-850-1-img1.png")


def test_folders_by_number_and_labels_that_are_no_strings(root):
    save_pictures(root, "images/train/26/test1-3-1-img0.jpg", "images/train/26/test1-3-1-img1.jpg")
    (root / "test1.json").write_text(json.dumps(entry("test1-3-1-0", False)) + "\n")
    (record,) = read_set(NLVR2, root, "test").records
    assert record.labels == {"answer": "False", "group": "test1-3-0"} and record.path.parent.name == "26"


@pytest.mark.parametrize("spoil", HARMLESS)
def test_harmless_changes_change_nothing(root, spoil):
    before = read_set(NLVR2, root, "dev")
    spoil(root / "dev.json")
    assert read_set(NLVR2, root, "dev") == before


def test_half_a_pair_is_missing_and_a_line_repeats(root):
    (root / "dev/dev-850-1-img1.png").unlink()
    write(root, entry("dev-850-0-0"), entry("dev-850-1-0"), entry("dev-850-0-0"))
    listing = read_set(NLVR2, root, "dev")
    assert listing.missing == ["dev-850-1-0"] and len(listing.records) == 1
    assert "1 listed twice: dev-850-0-0" in listing.notes[0]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (entry("dev-850-0"), "the identifier is 'dev-850-0', expected one such as 'dev-850-0-0'"),
        (entry(850), "identifier: expected a text, found 850"),
        (entry("dev-850-0-0", "yes"), "the label is 'yes', expected one of True, False"),
        (entry("dev-850-0-0", None), "the label is None"),
        (entry("dev-850-0-0", sentence=""), "sentence: expected a text, found ''"),
        ({"identifier": "dev-850-0-0", "sentence": "a"}, "lacks 'label'"),
    ],
)
def test_what_is_wrong_is_named(root, second, message):
    write(root, entry("dev-1-0-0"), second)
    with pytest.raises(InputError, match=rf"dev\.json:2: {message}"):
        NLVR2.read(Files(root, root), "dev")


def test_what_is_not_there(root, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(InputError, match=f"{empty}: none of the 3 files .* such as dev-850-0-img0.png"):
        NLVR2.read(Files(root, empty), "dev")
    with pytest.raises(InputError, match="looked for train.json"):
        NLVR2.read(Files(root, root), "train")
    with pytest.raises(InputError, match="no split 'val'; this set has train, dev, test"):
        NLVR2.read(Files(root, root), "val")
