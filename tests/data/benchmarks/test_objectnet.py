import pytest
from picture_files import save_pictures
from spoiling import HARMLESS, replace
from video_sets import read_set, save_json

from coca_video.data.benchmarks.listing import Files
from coca_video.data.benchmarks.objectnet import SETS
from coca_video.data.benchmarks.vocabulary import class_list
from coca_video.errors import InputError

(OBJECTNET,) = SETS
FOLDERS = {
    "air_freshener": "Air freshener",
    "alarm_clock": "Alarm clock",
    "banana": "Banana",
    "tv_dvd": "TV/DVD player",
    "whistle": "Whistle",
}
OVERLAP = {
    "TV/DVD player": "iPod; loudspeaker",
    "Banana": "banana",
    "Alarm clock": "analog clock; digital clock",
}
LABELS = ["analog clock", "digital clock", "banana", "iPod", "loudspeaker"]


@pytest.fixture
def root(tmp_path):
    names = class_list("imagenet").names
    indices = [names.index(name) for name in ("analog clock", "digital clock", "banana", "iPod")] + [632]
    save_json(tmp_path / "mappings/folder_to_objectnet_label.json", FOLDERS)
    save_json(tmp_path / "mappings/objectnet_to_imagenet_1k.json", OVERLAP)
    numbers = {str(index): line for line, index in enumerate(indices)}
    save_json(tmp_path / "mappings/pytorch_to_imagenet_2012_id.json", numbers)
    (tmp_path / "mappings/imagenet_to_label_2012_v2").write_text("\n".join(LABELS) + "\n")
    save_pictures(tmp_path / "images", "banana/b.png", "banana/a.png", "air_freshener/c.png", "tv_dvd/a.png")
    return tmp_path


def test_classes_shared_with_imagenet(root):
    listing = read_set(OBJECTNET, root, "test")
    assert [record.id for record in listing.records] == ["banana/a.png", "banana/b.png", "tv_dvd/a.png"]
    assert [record.labels for record in listing.records] == [{"class": "banana"}] * 2 + [
        {"class": "TV/DVD player"}
    ]
    assert listing.classes == ["alarm clock", "banana", "TV/DVD player"]
    named, border, outside, seen, number = listing.notes
    assert (
        named.startswith("2 classes are named by ObjectNet's label") and "TV/DVD player, Alarm clock" in named
    )
    assert "red border" in border and "1 folders are not in ImageNet" in outside
    assert "holds 2 of the 3 classes" in seen and "publisher's name 113" in number


def test_a_name_that_would_stand_for_two(root):
    save_json(root / "mappings/objectnet_to_imagenet_1k.json", {"Whistle": "banana", "Banana": "banana"})
    assert read_set(OBJECTNET, root, "test").classes == ["banana", "whistle"]


@pytest.mark.parametrize("spoil", HARMLESS[:2])
def test_harmless_changes_change_nothing(root, spoil):
    before = read_set(OBJECTNET, root, "test")
    for path in (root / "mappings").iterdir():
        spoil(path)
    assert read_set(OBJECTNET, root, "test") == before


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "objectnet_to_imagenet_1k.json",
            '"banana"',
            '"bananas"',
            "'Banana' names 'bananas', which is not in",
        ),
        ("objectnet_to_imagenet_1k.json", '"Banana"', '"Fruit"', "'Fruit' is the label of no folder"),
        ("objectnet_to_imagenet_1k.json", '"banana"', "3", "'Banana': expected a text, found 3"),
        (
            "folder_to_objectnet_label.json",
            "air_freshener",
            "fresh_air",
            "images/air_freshener: is none of the 5",
        ),
        ("pytorch_to_imagenet_2012_id.json", ": 4", ': "x"', "'632': expected a whole number, found 'x'"),
        ("pytorch_to_imagenet_2012_id.json", '"632"', '"1000"', "there is no class 1000"),
        ("pytorch_to_imagenet_2012_id.json", "{", "[", "pytorch_to_imagenet_2012_id.json: not JSON"),
    ],
)
def test_mappings_that_are_wrong(root, name, old, new, message):
    replace(root / "mappings" / name, old, new)
    with pytest.raises(InputError, match=message):
        OBJECTNET.read(Files(root, root), "test")


def test_what_is_not_there(root, tmp_path_factory):
    with pytest.raises(InputError, match="no split 'val'; this set has test"):
        OBJECTNET.read(Files(root, root), "val")
    with pytest.raises(InputError, match="holds no folders of classes, such as air_freshener"):
        OBJECTNET.read(Files(root, tmp_path_factory.mktemp("empty")), "test")
    (root / "mappings/imagenet_to_label_2012_v2").unlink()
    with pytest.raises(InputError, match="no annotation file; looked for imagenet_to_label_2012_v2"):
        OBJECTNET.read(Files(root, root), "test")
