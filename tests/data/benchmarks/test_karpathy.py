import json

import pytest
from picture_files import save_pictures
from spoiling import HARMLESS
from video_sets import read_set, save_json, texts

from coca_video.data.benchmarks.karpathy import SETS
from coca_video.data.benchmarks.listing import Files
from coca_video.errors import InputError

COCO, FLICKR = SETS


def image(number: int, split: str, *captions: str) -> dict:
    name = f"COCO_val2014_{number:012d}.jpg"
    sentences = [{"tokens": [], "raw": caption, "imgid": 0, "sentid": 0} for caption in captions]
    return {"filepath": "val2014", "filename": name, "split": split, "cocoid": number, "sentences": sentences}


IMAGES = [
    image(7, "restval", "seven"),
    image(5, "test", " one, two\n", 'a "sign"', "3", "4", "5", "6"),
    image(6, "val", "six"),
    image(9, "train", "nine"),
    image(8, "test", "eight"),
]


@pytest.fixture
def root(tmp_path):
    save_json(tmp_path / "dataset_coco.json", {"dataset": "coco", "images": IMAGES})
    save_pictures(tmp_path, *(f"val2014/COCO_val2014_{number:012d}.jpg" for number in (5, 6, 7, 8, 9)))
    return tmp_path


def test_all_captions_in_the_order_of_the_file(root):
    listing = read_set(COCO, root, "test")
    assert texts(listing) == {"5": ["one, two", 'a "sign"', "3", "4", "5", "6"], "8": ["eight"]}
    assert listing.missing == [] and listing.notes == [] and listing.classes == []


def test_restval_is_train(root):
    assert list(texts(read_set(COCO, root, "train"))) == ["7", "9"]
    assert list(texts(read_set(COCO, root, "val"))) == ["6"]


def test_flickr_has_file_names_alone(tmp_path):
    first, second = ({**image(1, "test", "a"), "filename": f"{name}.jpg"} for name in ("007", "1000092795"))
    images = [
        {key: each[key] for key in each if key not in ("filepath", "cocoid")} for each in (first, second)
    ]
    save_json(tmp_path / "annotations/dataset_flickr30k.json", {"images": images})
    save_pictures(tmp_path / "flickr30k-images", "007.png", "1000092795.jpg")
    assert texts(read_set(FLICKR, tmp_path, "test")) == {"007": ["a"], "1000092795": ["a"]}


@pytest.mark.parametrize("spoil", HARMLESS)
def test_harmless_changes_change_nothing(root, spoil):
    before = read_set(COCO, root, "test")
    spoil(root / "dataset_coco.json")
    assert read_set(COCO, root, "test") == before


def test_missing_repeated_and_blank(root):
    blank = image(6, "test", "six", " ")
    save_json(root / "dataset_coco.json", {"images": [*IMAGES, image(12, "test", "gone"), IMAGES[4], blank]})
    listing = read_set(COCO, root, "test")
    assert list(texts(listing)) == ["5", "8", "6"] and listing.missing == ["12"] and listing.num_listed == 4
    assert [note.partition("json: ")[2] for note in listing.notes] == [
        "1 with a blank caption, which is left out: 6",
        "1 listed twice: 8",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filename": 3}, "image 0: filename: expected a text, found 3"),
        ({"sentences": "a"}, r"image 0 \(a\.jpg\): sentences: expected a list"),
        ({"sentences": [{"tokens": []}]}, r"image 0 \(a\.jpg\): lacks 'raw'"),
        ({"sentences": [{"raw": " "}]}, r"image 0 \(a\.jpg\): there is no text"),
        ({"sentences": [{"raw": 1}]}, r"image 0 \(a\.jpg\): expected a list of texts"),
        ({"cocoid": None}, r"image 0 \(a\.jpg\): expected an id, a number or a string, found None"),
        ({"split": None}, "image 0: split: expected a text, found None"),
        ({"split": "train"}, "lists no examples"),
        ({"filepath": 3}, r"image 0 \(a\.jpg\): filepath: expected a text, found 3"),
    ],
)
def test_what_is_wrong_is_named(root, change, message):
    entry = {"split": "test", "filename": "a.jpg", "sentences": [{"raw": "a"}], **change}
    save_json(root / "dataset_coco.json", {"images": [entry]})
    with pytest.raises(InputError, match=rf"dataset_coco\.json: {message}"):
        COCO.read(Files(root, root), "test")


def test_what_is_not_there(root, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(
        InputError, match=f"{empty}: none of the 2 files .* val2014/COCO_val2014_000000000005.jpg"
    ):
        COCO.read(Files(root, empty), "test")
    with pytest.raises(InputError, match="looked for dataset_coco.json"):
        COCO.read(Files(empty, root), "test")
    with pytest.raises(InputError, match="no split 'restval'; this set has train, val, test"):
        COCO.read(Files(root, root), "restval")
    (root / "dataset_coco.json").write_text(json.dumps([]))
    with pytest.raises(InputError, match="expected a JSON object, found a list"):
        COCO.read(Files(root, root), "test")
