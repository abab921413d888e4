import pytest
from spoiling import HARMLESS
from video_sets import read_set, save_json, save_videos, texts

from coca_video.data.benchmarks.activitynet import SETS
from coca_video.data.benchmarks.listing import Files
from coca_video.errors import InputError

(ACTIVITYNET,) = SETS
VIDEOS = {
    "v_-QOlSCBRmfW": {
        "duration": 82.73,
        "timestamps": [[17.37, 60.81], [0.83, 19.86], [60, 82]],
        "sentences": [" The girl dances.", "A girl stands, talking. ", "She bows."],
    },
    "v_7KMZQEsJW4a": {"duration": 10.0, "timestamps": [[0, 10.5]], "sentences": ["A man peels an orange."]},
}


@pytest.fixture
def root(tmp_path):
    save_json(tmp_path / "captions" / "val_1.json", VIDEOS)
    save_videos(tmp_path / "videos", "v_-QOlSCBRmfW.mp4", "7KMZQEsJW4a.mkv")
    return tmp_path


def test_paragraphs_are_in_the_files_order(root):
    listing = read_set(ACTIVITYNET, root, "val_1")
    assert texts(listing) == {
        "v_-QOlSCBRmfW": ["The girl dances. A girl stands, talking. She bows."],
        "v_7KMZQEsJW4a": ["A man peels an orange."],
    }
    assert [record.path.name for record in listing.records] == ["v_-QOlSCBRmfW.mp4", "7KMZQEsJW4a.mkv"]
    assert [record.span for record in listing.records] == [[], []]
    assert listing.annotations == [root / "captions" / "val_1.json"]


def test_segments_have_spans(root):
    listing = read_set(ACTIVITYNET, root, "val_1_segments")
    assert [(record.id, record.text, record.span) for record in listing.records] == [
        ("v_-QOlSCBRmfW_0", "The girl dances.", [17.37, 60.81]),
        ("v_-QOlSCBRmfW_1", "A girl stands, talking.", [0.83, 19.86]),
        ("v_-QOlSCBRmfW_2", "She bows.", [60, 82]),
        ("v_7KMZQEsJW4a_0", "A man peels an orange.", [0, 10.5]),
    ]


def test_ids_without_the_prefix(root):
    save_json(root / "captions" / "val_1.json", {"-QOlSCBRmfW": VIDEOS["v_-QOlSCBRmfW"]})
    assert list(texts(read_set(ACTIVITYNET, root, "val_1"))) == ["-QOlSCBRmfW"]


@pytest.mark.parametrize("spoil", HARMLESS)
def test_harmless_changes_change_nothing(root, spoil):
    before = texts(read_set(ACTIVITYNET, root, "val_1"))
    spoil(root / "captions" / "val_1.json")
    assert texts(read_set(ACTIVITYNET, root, "val_1")) == before


def test_segments_without_length_or_text_are_told(root):
    odd = {"timestamps": [[5, 5], [3, 1], [1, 2], [4, 6]], "sentences": ["a", "b", " ", "d"]}
    save_json(root / "captions" / "val_1.json", {"v_7KMZQEsJW4a": odd})
    listing = read_set(ACTIVITYNET, root, "val_1_segments")
    assert texts(listing) == {"v_7KMZQEsJW4a_1": ["b"], "v_7KMZQEsJW4a_3": ["d"]}
    assert listing.records[0].span == [1, 3]
    turned, empty, blank = listing.notes
    assert "1 spans written backwards: v_7KMZQEsJW4a_1" in turned
    assert "1 whose span has no length, left out: v_7KMZQEsJW4a_0" in empty
    assert "1 with a blank text, which is left out: v_7KMZQEsJW4a_2" in blank
    assert texts(read_set(ACTIVITYNET, root, "val_1")) == {"v_7KMZQEsJW4a": ["a b d"]}


def test_missing_videos_are_listed(root):
    (root / "videos" / "v_-QOlSCBRmfW.mp4").unlink()
    assert read_set(ACTIVITYNET, root, "val_1").missing == ["v_-QOlSCBRmfW"]
    listing = read_set(ACTIVITYNET, root, "val_1_segments")
    assert (listing.num_listed, len(listing.records), len(listing.missing)) == (4, 1, 3)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"timestamps": []}, "v_a: lacks 'sentences'"),
        ({"timestamps": [[0, 1]], "sentences": ["a", "b"]}, "v_a: timestamps must be a list of 2"),
        ({"timestamps": [[0]], "sentences": ["a"]}, r"v_a: expected \[start, end\] in seconds, found \[0\]"),
        ({"timestamps": [["0", "1"]], "sentences": ["a"]}, r"v_a: expected \[start, end\]"),
        ({"timestamps": [[0, 1]], "sentences": "a"}, "v_a: sentences: expected a list of texts, found 'a'"),
        ({"timestamps": [[0, 1]], "sentences": [1]}, "v_a: sentences: expected a text, found '1'"),
        ([], "v_a: expected an object"),
    ],
)
def test_what_is_wrong_is_named(root, entry, message):
    save_json(root / "captions" / "val_1.json", {"v_a": entry})
    with pytest.raises(InputError, match=rf"val_1\.json: {message}"):
        ACTIVITYNET.read(Files(root, root), "val_1")


def test_no_videos_and_no_such_split(root, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(InputError, match=rf"{empty}: none of the 2 files .* such as v_-QOlSCBRmfW\.mp4"):
        ACTIVITYNET.read(Files(root, empty), "val_1")
    with pytest.raises(InputError, match="looked for train.json"):
        ACTIVITYNET.read(Files(root, root), "train")
    with pytest.raises(InputError, match="no split 'test'; this set has train, val_1"):
        ACTIVITYNET.read(Files(root, root), "test")
