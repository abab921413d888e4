import json

import pytest
from picture_files import save_pictures
from spoiling import HARMLESS
from video_sets import read_set

from coca_video.data.benchmarks.listing import Files
from coca_video.data.benchmarks.snli_ve import SETS
from coca_video.errors import InputError

(SNLI_VE,) = SETS


def entry(number: int, relation: object = "neutral", **changes) -> dict:
    pair = {"Flickr30K_ID": "007", "pairID": f"007.jpg#1r{number}n", "sentence1": "A man."}
    return pair | {"sentence2": f" Statement, {number}", "gold_label": relation} | changes


def write(root, *entries: object) -> None:
    (root / "snli_ve_test.jsonl").write_text("".join(json.dumps(each) + "\n" for each in entries))


@pytest.fixture
def root(tmp_path):
    write(tmp_path, entry(2, "entailment"), entry(1, "contradiction"), entry(3))
    save_pictures(tmp_path / "flickr30k_images", "007.jpg", "008.jpg")
    return tmp_path


def test_statements_about_pictures(root):
    listing = read_set(SNLI_VE, root, "test")
    assert [record.id for record in listing.records] == ["007.jpg#1r2n", "007.jpg#1r1n", "007.jpg#1r3n"]
    relations = [record.labels for record in listing.records]
    assert relations == [{"relation": each} for each in ("entailment", "contradiction", "neutral")]
    assert listing.records[0].text == "Statement, 2" and listing.records[0].path.name == "007.jpg"
    assert listing.notes == []


@pytest.mark.parametrize("key", ["Flickr30K_ID", "Flickr30kID", "Flikr30kID"])
@pytest.mark.parametrize("id", ["008", "008.jpg"])
def test_spellings_of_the_picture(root, key, id):
    other = entry(1)
    del other["Flickr30K_ID"]
    write(root, other | {key: id})
    assert read_set(SNLI_VE, root, "test").records[0].path.name == "008.jpg"


@pytest.mark.parametrize("spoil", HARMLESS)
def test_harmless_changes_change_nothing(root, spoil):
    before = read_set(SNLI_VE, root, "test")
    spoil(root / "snli_ve_test.jsonl")
    assert read_set(SNLI_VE, root, "test") == before


def test_undecided_missing_and_repeated(root):
    write(root, entry(1), entry(2, "-"), entry(3, Flickr30K_ID="gone"), entry(1), entry(1, "entailment"))
    listing = read_set(SNLI_VE, root, "test")
    assert len(listing.records) == 1 and listing.missing == ["007.jpg#1r3n"] and listing.num_listed == 2
    assert [note.partition("jsonl: ")[2] for note in listing.notes] == [
        "1 without a label (-) are left out: 007.jpg#1r2n",
        "1 listed twice: 007.jpg#1r1n",
        "1 listed again with other contents; the first counts: 007.jpg#1r1n",
    ]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (entry(2, "maybe"), "gold_label is 'maybe', expected one of entailment, neutral, contradiction"),
        (entry(2, None), "gold_label is None"),
        (entry(2, sentence2=" "), "sentence2: expected a text, found ' '"),
        (entry(2, pairID=None), "pairID: expected an id"),
        (
            {"sentence2": "a", "gold_label": "neutral", "pairID": "1"},
            "lacks the picture's id; it may be called",
        ),
        ({"sentence2": "a"}, "lacks 'gold_label'"),
        ([], r"expected an object, found '\[\]'"),
    ],
)
def test_what_is_wrong_is_named(root, second, message):
    write(root, entry(1), second)
    with pytest.raises(InputError, match=rf"snli_ve_test\.jsonl:2: {message}"):
        SNLI_VE.read(Files(root, root), "test")


def test_what_is_not_there(root, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(InputError, match=f"{empty}: none of the 3 files .* such as 007.jpg"):
        SNLI_VE.read(Files(root, empty), "test")
    with pytest.raises(InputError, match="looked for snli_ve_dev.jsonl"):
        SNLI_VE.read(Files(root, root), "dev")
    with pytest.raises(InputError, match="no split 'val'; this set has train, dev, test"):
        SNLI_VE.read(Files(root, root), "val")
    write(root, entry(1, "-"))
    with pytest.raises(InputError, match="snli_ve_test.jsonl: lists no examples"):
        SNLI_VE.read(Files(root, root), "test")
