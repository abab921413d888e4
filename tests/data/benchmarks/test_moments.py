import pytest
from copies import write_texts, write_videos
from spoiling import HARMLESS, replace
from video_sets import read_set

from coca_video.data.benchmarks.listing import Files
from coca_video.data.benchmarks.moments import SETS
from coca_video.data.benchmarks.vocabulary import class_list
from coca_video.errors import InputError

(MOMENTS,) = SETS
IDS = sorted(class_list("moments").ids)  # another order than the vocabulary's
TABLES = {
    "moments_categories.txt": "".join(f"{id},{index}\n" for index, id in enumerate(IDS)),
    "trainingSet.csv": (
        "adult+female+singing/yt-0P3XG_vf91c_35.mp4,adult+female+singing,3,1\n"
        "blocking/getty-karate.v2_id635808620_4.mp4,blocking,4,0\n"
        "blocking/-5of6ffo6-Bw_205.mp4,blocking,3,0\n"
    ),
    "validationSet.csv": "clapping/flickr-0-1-2_5.mp4,clapping,3,0\n",
}


@pytest.fixture
def root(tmp_path):
    write_texts(tmp_path, TABLES)
    write_videos(
        tmp_path,
        "training/adult+female+singing/yt-0P3XG_vf91c_35.mp4",
        "training/blocking/getty-karate.v2_id635808620_4.mp4",
        "validation/clapping/flickr-0-1-2_5.mp4",
    )
    return tmp_path


def test_a_split(root):
    listing = read_set(MOMENTS, root, "train")
    assert [(record.id, record.text, record.labels) for record in listing.records] == [
        (
            "adult+female+singing/yt-0P3XG_vf91c_35",
            "adult female singing",
            {"class": "adult female singing"},
        ),
        ("blocking/getty-karate.v2_id635808620_4", "blocking", {"class": "blocking"}),
    ]
    assert listing.missing == ["blocking/-5of6ffo6-Bw_205"]
    assert listing.notes == []
    assert [record.text for record in read_set(MOMENTS, root, "val").records] == ["clapping"]


def test_classes_have_the_publishers_order(root):
    classes = read_set(MOMENTS, root, "val").classes
    assert classes[0] == "adult female singing" and len(classes) == 339
    assert classes != class_list("moments").names


def test_few_categories_leave_all_classes(root):
    (root / "moments_categories.txt").write_text("blocking,0\nadult+female+singing,1\n")
    write_texts(root, {"validationSet.csv": TABLES["trainingSet.csv"]})
    listing = read_set(MOMENTS, root, "train")
    assert listing.classes == class_list("moments").names
    assert any("2 of the 339 classes" in note for note in listing.notes)


def test_version_2_has_its_own_classes(root):
    kept = [id for id in IDS if id not in IDS[-34:]]
    lines = "".join(f"{id},{index}\n" for index, id in enumerate(kept))
    (root / "moments_categories.txt").write_text(lines)
    listing = read_set(MOMENTS, root, "train")
    assert len(listing.classes) == 305
    assert any("version 2" in note for note in listing.notes)
    replace(root / "trainingSet.csv", "blocking,4", f"{IDS[-1]},4")
    with pytest.raises(InputError, match=r"trainingSet\.csv:2: .* is not in moments_categories\.txt"):
        MOMENTS.read(Files(root, root), "train")


def test_the_same_clip_of_another_class_is_no_replacement(root):
    path = root / "trainingSet.csv"
    path.write_text(path.read_text() + "clapping/getty-karate.v2_id635808620_4.mp4,clapping,2,1\n")
    assert "clapping/getty-karate.v2_id635808620_4" in read_set(MOMENTS, root, "train").missing


@pytest.mark.parametrize("spoil", HARMLESS)
def test_other_systems_files_read_the_same(root, spoil):
    before = read_set(MOMENTS, root, "train")
    for name in TABLES:
        spoil(root / name)
    assert read_set(MOMENTS, root, "train") == before


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "trainingSet.csv",
            "blocking,4,0",
            "bloking,4,0",
            r"trainingSet\.csv:2: 'bloking' is none of the 339",
        ),
        ("trainingSet.csv", ",blocking,4,0", "", r"trainingSet\.csv:2: expected 2 fields, found 1"),
        (
            "moments_categories.txt",
            "aiming,",
            "aiming,x",
            r"categories\.txt:\d+: 'aiming' needs an index, found 'x",
        ),
    ],
)
def test_wrong_tables_are_named(root, file, old, new, message):
    replace(root / file, old, new)
    with pytest.raises(InputError, match=message):
        MOMENTS.read(Files(root, root), "train")


def test_unknown_split_and_no_videos(root, tmp_path):
    with pytest.raises(InputError, match="no split 'test'; this set has train, val"):
        MOMENTS.read(Files(root, root), "test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: none of the 3 files .*adult\+female\+singing/yt.*_35\.mp4"):
        MOMENTS.read(Files(root, tmp_path / "empty"), "train")
