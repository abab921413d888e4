from pathlib import Path

import pytest
from picture_files import save_pictures
from video_sets import read_set

from coca_video.data.benchmarks.imagenet import SETS
from coca_video.data.benchmarks.listing import Files
from coca_video.data.benchmarks.vocabulary import class_list
from coca_video.errors import InputError

BY_NAME = {each.name: each for each in SETS}
GOLDFISH, STINGRAY, JUNCO, PEN, MISSILE = "n01443537", "n01498041", "n01534433", "n02051845", "n03773504"


def test_train_and_val_by_folders(tmp_path):
    for split, name in (("train", "n01443537_2.JPEG"), ("val", "ILSVRC2012_val_00000293.JPEG")):
        save_pictures(
            tmp_path / f"ILSVRC/Data/CLS-LOC/{split}", f"{STINGRAY}/-a.b.JPEG", f"{GOLDFISH}/{name}"
        )
        (tmp_path / f"ILSVRC/Data/CLS-LOC/{split}" / GOLDFISH / "notes.txt").write_text("no picture")
        listing = read_set(BY_NAME["imagenet"], tmp_path, split)
        assert [record.id for record in listing.records] == [f"{GOLDFISH}/{name}", f"{STINGRAY}/-a.b.JPEG"]
        assert {record.path.parts[-3] for record in listing.records} == {split}
        first = listing.records[0]
        assert first.text == "goldfish" and first.labels == {"class": GOLDFISH}
        assert listing.classes == class_list("imagenet").names and len(listing.classes) == 1000
        assert listing.missing == [] and "holds 2 of the 1000 classes; all are kept" in listing.notes[0]
        assert "names of two classes each" in listing.notes[1] and "missile" in listing.notes[1]
        assert listing.class_ids[1] == GOLDFISH and len(set(listing.class_ids)) == 1000


def test_the_folder_of_a_split_may_be_the_media_folder(tmp_path):
    save_pictures(tmp_path / "val", f"{GOLDFISH}/a.JPEG")
    files = Files(tmp_path, tmp_path / "val")
    assert len(BY_NAME["imagenet"].read(files, "val").records) == 1
    with pytest.raises(InputError, match="val: holds no folders of classes, such as n01440764"):
        BY_NAME["imagenet"].read(files, "train")


def test_v2_is_numbered_by_class(tmp_path):
    save_pictures(tmp_path / "imagenetv2-matched-frequency-format-val", "10/a.jpeg", "9/b.jpeg", "1/c.jpeg")
    save_pictures(tmp_path / "imagenetv2-top-images-format-val", "3/a.jpeg")
    listing = read_set(BY_NAME["imagenet_v2"], tmp_path, "test")
    names = class_list("imagenet").names
    assert [record.text for record in listing.records] == [names[1], names[9], names[10]]
    assert [record.id for record in listing.records] == ["1/c.jpeg", "9/b.jpeg", "10/a.jpeg"]
    save_pictures(tmp_path / "imagenetv2-matched-frequency-format-val", "1000/a.jpeg")
    with pytest.raises(InputError, match="1000: is not a class; the folders are called 0 to 999"):
        BY_NAME["imagenet_v2"].read(Files(tmp_path, tmp_path), "test")


@pytest.mark.parametrize(
    ("name", "folder", "wnid", "num_classes"),
    [
        ("imagenet_a", "imagenet-a", JUNCO, 200),
        ("imagenet_r", "imagenet-r", PEN, 200),
        ("imagenet_sketch", "sketch", MISSILE, 1000),
    ],
)
def test_variants_have_their_own_classes(tmp_path, name, folder, wnid, num_classes):
    save_pictures(tmp_path / folder, f"{wnid}/a.jpg")
    save_pictures(tmp_path / "another", f"{wnid}/a.jpg", f"{wnid}/b.jpg")
    listing = read_set(BY_NAME[name], tmp_path, "test")
    assert [record.labels["class"] for record in listing.records] == [wnid]
    assert len(listing.classes) == num_classes and listing.records[0].text in listing.classes
    with pytest.raises(InputError, match="no split 'val'; this set has test"):
        BY_NAME[name].read(Files(tmp_path, tmp_path), "val")


def test_classes_that_are_not_the_sets(tmp_path):
    save_pictures(tmp_path / "imagenet-a", f"{JUNCO}/a.jpg", f"{GOLDFISH}/a.jpg")
    with pytest.raises(InputError, match=f"imagenet-a/{GOLDFISH}: is none of the 200 classes"):
        BY_NAME["imagenet_a"].read(Files(tmp_path, tmp_path), "test")


def test_nothing_and_too_much(tmp_path):
    files = Files(tmp_path, tmp_path)
    with pytest.raises(InputError, match="holds no folders of classes, such as n01498041"):
        BY_NAME["imagenet_a"].read(files, "test")
    (tmp_path / "one" / JUNCO).mkdir(parents=True)
    with pytest.raises(InputError, match="one: there are no pictures in its 1 folders of classes"):
        BY_NAME["imagenet_a"].read(files, "test")
    save_pictures(tmp_path, f"one/{JUNCO}/a.jpg", f"two/{JUNCO}/a.jpg")
    with pytest.raises(
        InputError, match="several folders hold classes, one, two; give the one that is meant"
    ):
        BY_NAME["imagenet_a"].read(files, "test")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        BY_NAME["imagenet_a"].read(Files(tmp_path, Path("nowhere")), "test")


def test_official_numbers():
    numbers = {each.name: each.splits for each in SETS}
    assert numbers == {
        "imagenet": {"train": 1281167, "val": 50000},
        "imagenet_v2": {"test": 10000},
        "imagenet_a": {"test": 7500},
        "imagenet_r": {"test": 30000},
        "imagenet_sketch": {"test": 50889},
    }
