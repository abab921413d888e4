import numpy as np
import pytest
from spoiling import HARMLESS
from video_sets import read_set, save_json, save_videos, texts

from coca_video.data.benchmarks.listing import Files, MissingLabels
from coca_video.data.benchmarks.vatex import SETS
from coca_video.errors import InputError

(VATEX,) = SETS
ONE, TWO, THREE = "-tf_2VRj-V0_000122_000132", "a_b_c_d_e_f_000003_000013", "00000000000_000000_000010"
VALIDATION = "vatex_validation_v1.0.json"


def entry(name: str) -> dict:
    return {"videoID": name, "enCap": [f" {name}, one", f"{name}, two"], "chCap": ["一", "二"]}


@pytest.fixture
def root(tmp_path):
    save_json(tmp_path / VALIDATION, [entry(name) for name in (ONE, TWO, THREE)])
    save_videos(tmp_path / "videos", *(f"{name}.mp4" for name in (ONE, TWO, THREE)))
    return tmp_path


def test_all_english_captions(root):
    listing = read_set(VATEX, root, "val")
    assert texts(listing) == {name: [f"{name}, one", f"{name}, two"] for name in (ONE, TWO, THREE)}
    assert [record.path.stem for record in listing.records] == [ONE, TWO, THREE] and listing.notes == []


@pytest.mark.parametrize(
    ("split", "name"), [("val_retrieval", "val_list.txt"), ("test_retrieval", "test_list.txt")]
)
def test_retrieval_splits_are_lists_of_ids(root, split, name):
    (root / name).write_text(f"{THREE}\r\n{ONE}.mp4\r\n")
    listing = read_set(VATEX, root, split)
    assert list(texts(listing)) == [THREE, ONE]
    assert listing.annotations == [root / name, root / VALIDATION]


def test_retrieval_splits_as_arrays(root):
    np.save(root / "tst_names.npy", np.array([TWO, ONE]))
    assert list(texts(read_set(VATEX, root, "test_retrieval"))) == [TWO, ONE]
    np.save(root / "tst_names.npy", np.array([TWO, ONE], dtype=object))
    with pytest.raises(InputError, match=r"tst_names\.npy: .*; give a list of ids, one a line"):
        VATEX.read(Files(root, root), "test_retrieval")


def test_other_names_of_files(root):
    (root / "videos" / f"{TWO}.mp4").rename(root / "videos" / "a_b_c_d_e_f_3_13.mp4")
    (root / "videos" / f"{ONE}.mp4").rename(root / "videos" / "-tf_2VRj-V0.mkv")
    listing = read_set(VATEX, root, "val")
    assert listing.missing == [] and list(texts(listing)) == [ONE, TWO, THREE]
    assert len(listing.notes) == 1 and "1 files bear a YouTube id alone" in listing.notes[0]


@pytest.mark.parametrize("spoil", HARMLESS)
def test_harmless_changes_change_nothing(root, spoil):
    before = texts(read_set(VATEX, root, "val"))
    spoil(root / VALIDATION)
    assert texts(read_set(VATEX, root, "val")) == before


def test_repeats_blanks_and_missing_videos_are_told(root):
    gone, blank = entry("gone1234567_000001_000011"), entry(TWO) | {"enCap": ["", "two"]}
    save_json(root / VALIDATION, [entry(ONE), blank, gone, entry(ONE)])
    listing = read_set(VATEX, root, "val")
    assert texts(listing) == {ONE: [f"{ONE}, one", f"{ONE}, two"], TWO: ["two"]}
    assert listing.missing == [gone["videoID"]]
    assert [note.partition("json: ")[2] for note in listing.notes] == [
        f"1 listed twice: {ONE}",
        f"1 with a blank text, which is left out: {TWO}",
    ]


def test_a_test_set_without_captions_is_refused(root):
    save_json(root / "vatex_public_test_without_annotations.json", [{"videoID": ONE}])
    with pytest.raises(MissingLabels, match=rf"entry 0: {ONE} has no captions"):
        VATEX.read(Files(root, root), "test")
    save_json(root / "vatex_public_test_english_v1.1.json", [entry(ONE)])
    assert list(texts(read_set(VATEX, root, "test"))) == [ONE]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "expected a JSON list"),
        ([{"enCap": ["a"]}], "entry 0: lacks 'videoID'"),
        ([{"videoID": ONE, "enCap": "a"}], "entry 0: enCap: expected a list of texts, found 'a'"),
        ([{"videoID": ONE, "enCap": [1]}], "entry 0: enCap: expected a text, found '1'"),
        ([{"videoID": " ", "enCap": ["a"]}], "entry 0: expected an id, found ' '"),
    ],
)
def test_what_is_wrong_is_named(root, entries, message):
    save_json(root / VALIDATION, entries)
    with pytest.raises(InputError, match=rf"v1\.0\.json: {message}"):
        VATEX.read(Files(root, root), "val")


def test_no_videos_no_lists_and_no_such_split(root, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(InputError, match=rf"{empty}: none of the 3 files .* such as {ONE}\.mp4"):
        VATEX.read(Files(root, empty), "val")
    with pytest.raises(InputError, match=r"looked for test_list\.txt.*tst_names\.npy"):
        VATEX.read(Files(root, root), "test_retrieval")
    (root / "test_list.txt").write_text("unknown\n")
    with pytest.raises(InputError, match=r"test_list\.txt: 'unknown' is not in the validation file"):
        VATEX.read(Files(root, root), "test_retrieval")
    with pytest.raises(InputError, match="no split 'private'; this set has train, val, test"):
        VATEX.read(Files(root, root), "private")
