import pytest
from spoiling import HARMLESS
from video_sets import read_set, save_json, save_videos

from coca_video.data.benchmarks.listing import Files
from coca_video.data.benchmarks.video_qa import MSRVTT_SPLITS, MSVD_SPLITS, SETS
from coca_video.errors import InputError

MSRVTT_QA, MSVD_QA = SETS


def entry(number: int, question: str, answer: object, **video: object) -> dict:
    return {"answer": answer, "id": number, "question": question} | video


SITTING = entry(158581, "what are three people sitting on? ", "couch", video_id=6513, category_id=14)
SINGING = entry(158582, "Who sings, and dances?", " man", video_id="video7")
PEELING = entry(30933, "what is peeled?", "orange", video_id=1201)
EATING = entry(30934, "who eats?", "squirrel", video="-4wsuPCjDBc_5_15.avi")


@pytest.fixture
def msrvtt(tmp_path):
    save_json(tmp_path / "val_qa.json", [SITTING, SINGING])
    save_videos(tmp_path / "videos", "video6513.mp4", "video7.mp4")
    return tmp_path


@pytest.fixture
def msvd(tmp_path):
    save_json(tmp_path / "test_qa.json", [PEELING, EATING])
    (tmp_path / "youtube_mapping.txt").write_text("-4wsuPCjDBc_5_15 vid1\n_7KMZQEsJW4_205_208 vid1201\n")
    save_videos(tmp_path / "YouTubeClips", "-4wsuPCjDBc_5_15.avi", "_7KMZQEsJW4_205_208.avi")
    return tmp_path


def found(listing):
    return [(record.id, record.text, record.answers, record.path.name) for record in listing.records]


def test_questions_on_msrvtt(msrvtt):
    listing = read_set(MSRVTT_QA, msrvtt, "val")
    assert found(listing) == [
        ("158581", "what are three people sitting on?", ["couch"], "video6513.mp4"),
        ("158582", "Who sings, and dances?", ["man"], "video7.mp4"),
    ]
    assert [record.labels for record in listing.records] == [
        {"question_type": "what"},
        {"question_type": "who"},
    ]
    assert listing.subsets == {}


def test_questions_on_msvd_go_through_the_mapping(msvd):
    listing = read_set(MSVD_QA, msvd, "test")
    assert found(listing) == [
        ("30933", "what is peeled?", ["orange"], "_7KMZQEsJW4_205_208.avi"),
        ("30934", "who eats?", ["squirrel"], "-4wsuPCjDBc_5_15.avi"),
    ]
    assert listing.annotations == [msvd / "test_qa.json", msvd / "youtube_mapping.txt"]


@pytest.mark.parametrize("video", [1201, "1201", "vid1201", "video1201", "_7KMZQEsJW4_205_208"])
def test_spellings_of_msvds_ids(msvd, video):
    save_json(msvd / "test_qa.json", [PEELING | {"video_id": video}])
    assert read_set(MSVD_QA, msvd, "test").records[0].path.name == "_7KMZQEsJW4_205_208.avi"


def test_msvd_without_a_mapping(msvd):
    (msvd / "youtube_mapping.txt").unlink()
    save_json(msvd / "test_qa.json", [PEELING])
    with pytest.raises(InputError, match=r"such as vid1201\.mp4, .*need youtube_mapping\.txt"):
        MSVD_QA.read(Files(msvd, msvd), "test")
    save_videos(msvd / "YouTubeClips", "vid1201.avi")
    assert read_set(MSVD_QA, msvd, "test").records[0].path.name == "vid1201.avi"


def test_the_papers_parts_add_up(msvd):
    assert sum(read_set(MSVD_QA, msvd, "test").subsets.values()) == MSVD_SPLITS["test"]
    save_json(msvd / "test_qa.json", [SINGING])
    save_videos(msvd / "videos", "video7.mp4")
    subsets = read_set(MSRVTT_QA, msvd, "test").subsets
    assert sum(subsets.values()) == MSRVTT_SPLITS["test"] and subsets["question_type=who"] == 20385


def test_another_files_name_and_no_ids(msrvtt):
    (msrvtt / "val_qa.json").unlink()
    questions = [{"question": "who sings?", "answer": "man", "video": "video7.mp4"}] * 2
    save_json(msrvtt / "qa_val.json", questions)
    assert [record.id for record in read_set(MSRVTT_QA, msrvtt, "val").records] == ["0", "1"]


@pytest.mark.parametrize("spoil", HARMLESS)
def test_harmless_changes_change_nothing(msvd, spoil):
    before = found(read_set(MSVD_QA, msvd, "test"))
    spoil(msvd / "test_qa.json")
    spoil(msvd / "youtube_mapping.txt")
    assert found(read_set(MSVD_QA, msvd, "test")) == before


def test_repeats_blanks_and_missing_videos_are_told(msrvtt):
    gone, blank = entry(3, "who?", "man", video_id=9), entry(4, " ", "man", video_id=7)
    save_json(msrvtt / "val_qa.json", [SINGING, gone, blank, SINGING])
    listing = read_set(MSRVTT_QA, msrvtt, "val")
    assert [record.id for record in listing.records] == ["158582"] and listing.missing == ["3"]
    assert [note.partition("json: ")[2] for note in listing.notes] == [
        "1 listed twice: 158582",
        "1 with a blank text, which is left out: 4",
    ]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "expected a JSON list"),
        ([{"question": "who?", "id": 1, "video_id": 7}], "entry 0: lacks 'answer'"),
        ([{"question": "who?", "answer": "man", "id": 1}], "entry 0: lacks 'video_id'"),
        ([SINGING, entry(1, "who?", 2, video_id=7)], "entry 1: expected a text, found '2'"),
        ([entry(1, "who?", "", video_id=7)], "entry 0: has no answer"),
        ([entry(1, ["who?"], "man", video_id=7)], "entry 0: expected a text"),
        ([entry(1, "who?", "man", video_id=None)], "entry 0: expected an id, found None"),
        ([entry(True, "who?", "man", video_id=7)], "entry 0: expected an id, found True"),
    ],
)
def test_what_is_wrong_is_named(msrvtt, entries, message):
    save_json(msrvtt / "val_qa.json", entries)
    with pytest.raises(InputError, match=rf"val_qa\.json: {message}"):
        MSRVTT_QA.read(Files(msrvtt, msrvtt), "val")


def test_a_wrong_mapping_is_named(msvd):
    (msvd / "youtube_mapping.txt").write_text("-4wsuPCjDBc_5_15 vid1\n")
    with pytest.raises(InputError, match=r"test_qa\.json: entry 0: youtube_mapping\.txt has no vid1201"):
        MSVD_QA.read(Files(msvd, msvd), "test")
    (msvd / "youtube_mapping.txt").write_text("-4wsuPCjDBc_5_15 vid1\n\nvid1201\n")
    with pytest.raises(InputError, match=r"youtube_mapping\.txt:3: expected .* found 'vid1201'"):
        MSVD_QA.read(Files(msvd, msvd), "test")


def test_no_videos_and_no_such_split(msrvtt, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(InputError, match=rf"{empty}: none of the 2 files .* such as video6513\.mp4"):
        MSRVTT_QA.read(Files(msrvtt, empty), "val")
    with pytest.raises(InputError, match=r"looked for train_qa\.json"):
        MSRVTT_QA.read(Files(msrvtt, msrvtt), "train")
    for each in SETS:
        with pytest.raises(InputError, match="no split 'dev'; this set has train, val, test"):
            each.read(Files(msrvtt, msrvtt), "dev")
