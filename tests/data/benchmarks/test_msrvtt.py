import pytest
from spoiling import HARMLESS
from video_sets import read_set, save_json, save_videos, texts

from coca_video.data.benchmarks.listing import Files
from coca_video.data.benchmarks.msrvtt import SETS
from coca_video.errors import InputError

PARTITION_A, PARTITION_B, FULL = SETS
SPLITS = {"video0": "train", "video1": "train", "video2": "validate", "video3": "test", "video4": "test"}
TEST_CSV = (
    "key,vid_key,video_id,sentence\n"
    'ret0,msr4,video4,"a man, a plan and a canal"\n'
    "ret1,msr3,video3, a person is connecting something to system \n"
)


def data(*names: str) -> dict:
    """As the publisher's file of these videos; the first sentences of all come first."""
    videos = [
        {"video_id": name, "split": SPLITS[name], "start time": 1.5, "end time": 9.0, "id": i, "category": 3}
        for i, name in enumerate(names)
    ]
    sentences = [
        {"caption": f"{name} {number} ", "video_id": name, "sen_id": number}
        for number in range(2)
        for name in names
    ]
    return {"info": {}, "videos": videos, "sentences": sentences}


@pytest.fixture
def root(tmp_path):
    save_json(tmp_path / "MSRVTT_data.json", data(*SPLITS))
    (tmp_path / "MSRVTT_train.9k.csv").write_text("video_id\nvideo2\nvideo0\nvideo1\n")
    (tmp_path / "MSRVTT_train.7k.csv").write_text("video_id\nvideo0\n")
    (tmp_path / "MSRVTT_JSFUSION_test.csv").write_text(TEST_CSV)
    (tmp_path / "train_list_miech.txt").write_text("video0\nvideo1\n")
    save_videos(tmp_path / "videos", *(f"{name}.mp4" for name in SPLITS))
    return tmp_path


def test_1ka_has_one_sentence_a_test_video(root):
    listing = read_set(PARTITION_A, root, "test")
    assert texts(listing) == {
        "video4": ["a man, a plan and a canal"],
        "video3": ["a person is connecting something to system"],
    }
    assert [record.path.name for record in listing.records] == ["video4.mp4", "video3.mp4"]
    assert not any(record.span for record in listing.records)
    assert listing.annotations == [root / "MSRVTT_JSFUSION_test.csv"] and listing.notes == []


def test_1ka_trains_on_all_sentences_of_its_list(root):
    listing = read_set(PARTITION_A, root, "train")
    assert list(texts(listing)) == ["video2", "video0", "video1"]
    assert texts(listing)["video1"] == ["video1 0", "video1 1"]
    assert list(texts(read_set(PARTITION_A, root, "train_7k"))) == ["video0"]


def test_the_publishers_split_with_all_sentences(root):
    for split, names in (
        ("train", ["video0", "video1"]),
        ("val", ["video2"]),
        ("test", ["video3", "video4"]),
    ):
        assert texts(read_set(FULL, root, split)) == {name: [f"{name} 0", f"{name} 1"] for name in names}


def test_the_publishers_two_files(root):
    (root / "MSRVTT_data.json").unlink()
    save_json(root / "annotation" / "test_videodatainfo.json", data("video3"))
    assert texts(read_set(FULL, root, "test")) == {"video3": ["video3 0", "video3 1"]}
    save_json(root / "annotation" / "train_val_videodatainfo.json", data("video0", "video1", "video2"))
    assert list(texts(read_set(FULL, root, "train"))) == ["video0", "video1"]
    assert list(texts(read_set(PARTITION_A, root, "train"))) == ["video2", "video0", "video1"]


def test_1kb_with_and_without_sentences(root):
    assert list(texts(read_set(PARTITION_B, root, "train"))) == ["video0", "video1"]
    (root / "test_list_miech.txt").write_text("video4.mp4\r\nvideo2\r\n\r\n")
    listing = read_set(PARTITION_B, root, "test")
    assert texts(listing) == {"video4": ["video4 0"], "video2": ["video2 0"]}
    assert len(listing.notes) == 1 and "each video has the first one of MSRVTT_data.json" in listing.notes[0]
    (root / "MSRVTT_MIECH_test.csv").write_text(TEST_CSV)
    assert texts(read_set(PARTITION_B, root, "test"))["video4"] == ["a man, a plan and a canal"]


@pytest.mark.parametrize("spoil", HARMLESS)
def test_harmless_changes_change_nothing(root, spoil):
    before = [texts(read_set(PARTITION_A, root, split)) for split in ("train", "test")]
    for path in (*root.glob("*.csv"), *root.glob("*.json")):
        spoil(path)
    assert [texts(read_set(PARTITION_A, root, split)) for split in ("train", "test")] == before


def test_repeats_blanks_and_missing_videos_are_told(root):
    path = root / "MSRVTT_JSFUSION_test.csv"
    path.write_text(
        TEST_CSV + "ret2,msr3,video3,another sentence\nret3,msr9,video9,gone\nret4,msr0,video0, \n"
    )
    listing = read_set(PARTITION_A, root, "test")
    assert list(texts(listing)) == ["video4", "video3"] and listing.missing == ["video9"]
    assert texts(listing)["video3"] == ["a person is connecting something to system"]
    repeated, blank = listing.notes
    assert "1 listed again with other contents; the first counts: video3" in repeated
    assert "1 with a blank text, which is left out: video0" in blank


def test_a_picture_does_not_stand_for_a_video(root):
    (root / "videos" / "video4.mp4").rename(root / "videos" / "video4.jpg")
    assert read_set(PARTITION_A, root, "test").missing == ["video4"]


@pytest.mark.parametrize(
    ("name", "content", "split", "message"),
    [
        ("MSRVTT_JSFUSION_test.csv", "key,sentence\na,b\n", "test", r"lacks the column 'video_id'"),
        (
            "MSRVTT_JSFUSION_test.csv",
            "video_id,sentence\nvideo4,a,b\n",
            "test",
            r"\.csv:2: expected 2 fields",
        ),
        ("MSRVTT_JSFUSION_test.csv", "video_id,sentence\n,b\n", "test", r"\.csv:2: expected an id, found ''"),
        ("MSRVTT_JSFUSION_test.csv", "video_id,sentence\n", "test", "lists nothing of this split"),
        ("MSRVTT_train.9k.csv", "video_id\nvideo7\n", "train", r"9k\.csv: 'video7' has no sentence"),
        ("MSRVTT_data.json", "{}", "train", r"MSRVTT_data\.json: lacks 'sentences'"),
        ("MSRVTT_data.json", '{"sentences": {}}', "train", "sentences must be a list"),
        (
            "MSRVTT_data.json",
            '{"sentences": [{"caption": "a"}]}',
            "train",
            r"sentences\[0\]: lacks 'video_id'",
        ),
        (
            "MSRVTT_data.json",
            '{"sentences": [{"caption": 3, "video_id": "video0"}]}',
            "train",
            r"sentences\[0\]: expected a text, found '3'",
        ),
    ],
)
def test_what_is_wrong_is_named(root, name, content, split, message):
    (root / name).write_text(content)
    with pytest.raises(InputError, match=message):
        PARTITION_A.read(Files(root, root), split)


def test_no_videos_no_annotations_and_no_such_split(root, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(InputError, match=rf"{empty}: none of the 2 files .* such as video4\.mp4"):
        PARTITION_A.read(Files(root, empty), "test")
    with pytest.raises(InputError, match=rf"{empty}: .* looked for MSRVTT_JSFUSION_test\.csv"):
        PARTITION_A.read(Files(empty, root), "test")
    with pytest.raises(InputError, match="no split 'val'; this set has train, train_7k, test"):
        PARTITION_A.read(Files(root, root), "val")
    with pytest.raises(InputError, match="no split 'validate'; this set has train, val, test"):
        FULL.read(Files(root, root), "validate")


def test_official_sizes():
    assert PARTITION_A.splits == {"train": 9000, "train_7k": 7010, "test": 1000}
    assert PARTITION_B.splits == {"train": 6656, "test": 1000}
    assert sum(FULL.splits.values()) == 10000
    assert [each.name for each in SETS] == ["msrvtt_1ka", "msrvtt_1kb", "msrvtt_full"]
