import pytest
from copies import write_texts, write_videos
from spoiling import HARMLESS, replace
from video_sets import read_set

from coca_video.data.benchmarks.listing import Files
from coca_video.data.benchmarks.ucf101 import SETS
from coca_video.errors import InputError

(UCF101,) = SETS
LISTS = {
    "ucfTrainTestlist/classInd.txt": "1 ApplyEyeMakeup\n5 BalanceBeam\n37 HandstandPushups\n",
    "ucfTrainTestlist/trainlist01.txt": (
        "BalanceBeam/v_BalanceBeam_g08_c01.avi 5\n"
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\n"
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c02.avi 1\n"
    ),
    "ucfTrainTestlist/testlist01.txt": (
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi\nHandstandPushups/v_HandStandPushups_g01_c01.avi\n"
    ),
}
TRAIN_LIST = "ucfTrainTestlist/trainlist01.txt"


@pytest.fixture
def root(tmp_path):
    write_texts(tmp_path, LISTS)
    write_videos(
        tmp_path / "UCF-101",
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi",
        "BalanceBeam/v_BalanceBeam_g08_c01.avi",
        "HandstandPushups/v_HandstandPushups_g01_c01.avi",
    )
    return tmp_path


def test_a_training_split(root):
    listing = read_set(UCF101, root, "train1")
    assert [(record.id, record.text, record.labels) for record in listing.records] == [
        ("BalanceBeam/v_BalanceBeam_g08_c01", "Balance Beam", {"class": "Balance Beam"}),
        ("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01", "Apply Eye Makeup", {"class": "Apply Eye Makeup"}),
    ]
    assert listing.missing == ["ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c02"]
    assert len(listing.classes) == 101 and listing.classes[0] == "Apply Eye Makeup"
    assert [path.name for path in listing.annotations] == ["classInd.txt", "trainlist01.txt"]
    assert any("3 of the 101 classes" in note for note in listing.notes)


def test_a_test_split_has_no_indices_and_finds_either_spelling_of_handstand(root):
    listing = read_set(UCF101, root, "test1")
    assert [record.text for record in listing.records] == ["Apply Eye Makeup", "Hand Stand Pushups"]
    assert listing.records[1].path.name == "v_HandstandPushups_g01_c01.avi"
    assert listing.missing == []


def test_all_is_both_lists(root):
    listing = read_set(UCF101, root, "all")
    assert listing.num_listed == 5 and len(listing.annotations) == 3


def test_official_sizes_add_up():
    for number in "123":
        assert UCF101.splits[f"train{number}"] + UCF101.splits[f"test{number}"] == UCF101.splits["all"]


def test_videos_converted_and_without_folders_are_found(root, tmp_path):
    media = tmp_path / "flat"
    write_videos(media, "v_BalanceBeam_g08_c01.mp4")
    listing = UCF101.read(Files(root, media), "train1")
    assert [record.path.name for record in listing.records] == ["v_BalanceBeam_g08_c01.mp4"]


@pytest.mark.parametrize("spoil", HARMLESS)
def test_other_systems_files_read_the_same(root, spoil):
    before = read_set(UCF101, root, "train1").records
    for path in (root / "ucfTrainTestlist").iterdir():
        spoil(path)
    assert read_set(UCF101, root, "train1").records == before


def test_a_repeated_line_counts_once(root):
    path = root / TRAIN_LIST
    path.write_text(path.read_text() + "BalanceBeam/v_BalanceBeam_g08_c01.avi 5\n")
    listing = read_set(UCF101, root, "train1")
    assert listing.num_listed == 3
    assert any("1 listed twice" in note for note in listing.notes)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (TRAIN_LIST, "BalanceBeam/v", "Ballet/v", r"trainlist01\.txt:1: 'Ballet' is none of the 101 classes"),
        (TRAIN_LIST, "c02.avi 1", "c02.avi 5", r"trainlist01\.txt:3: 'ApplyEyeMakeup' is not class '5'"),
        (
            "ucfTrainTestlist/classInd.txt",
            "5 Balance",
            "Balance",
            r"classInd\.txt:2: expected 2 words, found 1",
        ),
    ],
)
def test_wrong_lists_are_named(root, file, old, new, message):
    replace(root / file, old, new)
    with pytest.raises(InputError, match=message):
        UCF101.read(Files(root, root), "train1")


def test_unknown_split_missing_list_and_no_videos(root, tmp_path):
    with pytest.raises(InputError, match="no split 'test4'; this set has train1, test1"):
        UCF101.read(Files(root, root), "test4")
    with pytest.raises(InputError, match=r"no annotation file; looked for trainlist02\.txt"):
        UCF101.read(Files(root, root), "train2")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        InputError, match=r"empty: none of the 3 files .* BalanceBeam/v_BalanceBeam_g08_c01\.avi"
    ):
        UCF101.read(Files(root, tmp_path / "empty"), "train1")
