import pytest
from copies import write_texts, write_videos
from spoiling import HARMLESS, replace
from video_sets import read_set

from coca_video.data.benchmarks.hmdb51 import SETS
from coca_video.data.benchmarks.listing import Files
from coca_video.errors import InputError

(HMDB51,) = SETS
FOLDER = "testTrainMulti_7030_splits"
# As published: a space behind each line, names of any characters, and of films that are in several classes.
LISTS = {
    f"{FOLDER}/brush_hair_test_split1.txt": (
        "April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1 \n#20_Rhythm!_&_[x]_(b).c_1.avi 2 \nsame.avi 0 \n"
    ),
    f"{FOLDER}/kick_ball_test_split1.txt": "same.avi 1 \nGangster_kick_ball_f_cm_np1_ba_med_1.avi 2 \n",
    f"{FOLDER}/kick_ball_test_split2.txt": "same.avi 2 \n",
}


@pytest.fixture
def root(tmp_path):
    write_texts(tmp_path, LISTS)
    write_videos(
        tmp_path / "hmdb51_org",
        "brush_hair/#20_Rhythm!_&_[x]_(b).c_1.avi",
        "brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi",
        "brush_hair/same.avi",
        "kick_ball/same.avi",
    )
    return tmp_path


def test_marks_choose_the_split(root):
    train = read_set(HMDB51, root, "train1")
    assert [(record.id, record.text) for record in train.records] == [
        ("brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0", "brush hair"),
        ("kick_ball/same", "kick ball"),
    ]
    assert train.records[1].labels == {"class": "kick ball"} and "kick ball" in train.classes
    assert train.records[1].path == root / "hmdb51_org/kick_ball/same.avi"
    test = read_set(HMDB51, root, "test1")
    assert [record.id for record in test.records] == ["brush_hair/#20_Rhythm!_&_[x]_(b).c_1"]
    assert test.missing == ["kick_ball/Gangster_kick_ball_f_cm_np1_ba_med_1"]
    assert [record.id for record in read_set(HMDB51, root, "test2").records] == ["kick_ball/same"]


def test_all_has_the_unused_too(root):
    listing = read_set(HMDB51, root, "all")
    assert listing.num_listed == 5
    assert {record.id for record in listing.records} >= {"brush_hair/same", "kick_ball/same"}


def test_lists_of_few_classes_are_told_and_all_classes_kept(root):
    listing = read_set(HMDB51, root, "train1")
    assert len(listing.classes) == 51
    assert any("2 of the 51 classes" in note for note in listing.notes)


def test_official_sizes():
    assert (HMDB51.splits["train1"], HMDB51.splits["test3"]) == (3570, 1530)


def test_a_video_of_the_same_name_in_another_class_is_no_replacement(root):
    (root / "hmdb51_org/kick_ball/same.avi").unlink()
    assert read_set(HMDB51, root, "train1").missing == ["kick_ball/same"]


@pytest.mark.parametrize("spoil", HARMLESS)
def test_other_systems_files_read_the_same(root, spoil):
    before = read_set(HMDB51, root, "all").records
    for path in (root / FOLDER).iterdir():
        spoil(path)
    assert read_set(HMDB51, root, "all").records == before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("same.avi 0", "same.avi 3", r"brush_hair_test_split1\.txt:3: expected 0, 1 or 2 .* found '3'"),
        ("same.avi 0", "same.avi", r"brush_hair_test_split1\.txt:3: expected 2 words, found 1"),
    ],
)
def test_wrong_lists_are_named(root, old, new, message):
    replace(root / FOLDER / "brush_hair_test_split1.txt", old, new)
    with pytest.raises(InputError, match=message):
        HMDB51.read(Files(root, root), "train1")


def test_an_unknown_class_an_unknown_split_and_no_videos(root, tmp_path):
    with pytest.raises(InputError, match="no split 'val'"):
        HMDB51.read(Files(root, root), "val")
    with pytest.raises(InputError, match=r"no annotation file; looked for \*_test_split3\.txt"):
        HMDB51.read(Files(root, root), "train3")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: none of the 2 files .* brush_hair/April_09.*_0\.avi"):
        HMDB51.read(Files(root, tmp_path / "empty"), "train1")
    write_texts(root, {f"{FOLDER}/dust_test_split1.txt": "a.avi 1 \n"})
    with pytest.raises(InputError, match=r"dust_test_split1\.txt: 'dust' is none of the 51 classes"):
        HMDB51.read(Files(root, root), "train1")
