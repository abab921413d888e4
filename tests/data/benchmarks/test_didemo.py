import pytest
from spoiling import HARMLESS
from video_sets import read_set, save_json, save_videos, texts

from coca_video.data.benchmarks.didemo import SETS
from coca_video.data.benchmarks.listing import Files
from coca_video.errors import InputError

(DIDEMO,) = SETS
BIRD = "12090392@N02_13482799053_87ef417396.mov"
DOG = "54322086@N00_2408598493_274c77d26a.avi"


def entry(number: int, video: str, description: str) -> dict:
    return {
        "annotation_id": number,
        "video": video,
        "description": description,
        "times": [[0, 0], [1, 1]],
        "num_segments": 6,
    }


ENTRIES = [entry(7, BIRD, " a bird, white"), entry(9, DOG, "a dog runs"), entry(8, BIRD, "it flies away.")]


@pytest.fixture
def root(tmp_path):
    save_json(tmp_path / "data" / "test_data.json", ENTRIES)
    save_videos(tmp_path / "videos", BIRD, DOG)
    return tmp_path


def test_descriptions_of_a_video_are_one_text(root):
    listing = read_set(DIDEMO, root, "test")
    assert texts(listing) == {BIRD: ["a bird, white it flies away."], DOG: ["a dog runs"]}
    assert [record.span for record in listing.records] == [[0, 30], [0, 30]]
    assert [record.path.name for record in listing.records] == [BIRD, DOG] and listing.notes == []


@pytest.mark.parametrize("name", [f"{BIRD}.mp4", BIRD.replace(".mov", ".mp4"), BIRD.replace(".mov", ".MP4")])
def test_copies_encoded_anew_are_found(root, name):
    (root / "videos" / BIRD).rename(root / "videos" / name)
    listing = read_set(DIDEMO, root, "test")
    assert listing.records[0].id == BIRD and listing.records[0].path.name == name


def test_ids_without_an_ending(root):
    save_json(root / "data" / "test_data.json", [entry(1, BIRD.removesuffix(".mov"), "a bird")])
    assert list(texts(read_set(DIDEMO, root, "test"))) == [BIRD.removesuffix(".mov")]


@pytest.mark.parametrize("spoil", HARMLESS)
def test_harmless_changes_change_nothing(root, spoil):
    before = texts(read_set(DIDEMO, root, "test"))
    spoil(root / "data" / "test_data.json")
    assert texts(read_set(DIDEMO, root, "test")) == before


def test_repeats_blanks_and_missing_videos_are_told(root):
    gone = entry(10, "gone.mov", "a man")
    save_json(root / "data" / "test_data.json", [*ENTRIES, ENTRIES[0], entry(11, DOG, " "), gone])
    listing = read_set(DIDEMO, root, "test")
    assert texts(listing) == {BIRD: ["a bird, white it flies away."], DOG: ["a dog runs"]}
    assert listing.missing == ["gone.mov"]
    assert len(listing.notes) == 1 and "1 annotations listed again" in listing.notes[0]


def test_one_annotation_with_two_texts_counts_twice(root):
    save_json(root / "data" / "test_data.json", [entry(7, BIRD, "a bird"), entry(7, BIRD, "it sings")])
    listing = read_set(DIDEMO, root, "test")
    assert texts(listing)[BIRD] == ["a bird it sings"] and listing.notes == []


def test_entries_without_annotation_id_all_count(root):
    for each in (entries := [dict(each) for each in ENTRIES]):
        del each["annotation_id"]
    save_json(root / "data" / "test_data.json", entries)
    assert texts(read_set(DIDEMO, root, "test"))[BIRD] == ["a bird, white it flies away."]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "expected a JSON list"),
        ([{"video": BIRD}], "entry 0: lacks 'description'"),
        ([ENTRIES[0], entry(2, BIRD, None)], "entry 1: expected a text, found 'None'"),
        ([entry(2, None, "a")], "entry 0: expected an id, found None"),
        (["a"], "entry 0: expected an object"),
        ([], "lists nothing of this split"),
        ([entry(2, BIRD, "")], "lists nothing of this split"),
    ],
)
def test_what_is_wrong_is_named(root, entries, message):
    save_json(root / "data" / "test_data.json", entries)
    with pytest.raises(InputError, match=rf"test_data\.json: {message}"):
        DIDEMO.read(Files(root, root), "test")


def test_no_videos_and_no_such_split(root, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    stem = BIRD.removesuffix(".mov")
    with pytest.raises(InputError, match=rf"{empty}: none of the 2 files .* such as {stem}\.mp4"):
        DIDEMO.read(Files(root, empty), "test")
    with pytest.raises(InputError, match="looked for val_data.json"):
        DIDEMO.read(Files(root, root), "val")
    with pytest.raises(InputError, match="no split 'dev'; this set has train, val, test"):
        DIDEMO.read(Files(root, root), "dev")
