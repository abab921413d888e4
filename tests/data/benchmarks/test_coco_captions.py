import pytest
from picture_files import save_pictures
from spoiling import HARMLESS
from video_sets import read_set, save_json, texts

from coca_video.data.benchmarks.coco_captions import SETS
from coca_video.data.benchmarks.listing import Files
from coca_video.errors import InputError

(COCO,) = SETS
IMAGES = [{"id": 139, "file_name": "000000000139.jpg"}, {"id": 7, "file_name": "000000000007.jpg"}]
CAPTIONS = [
    {"id": 3, "image_id": 7, "caption": " A cat, and a dog.\n"},
    {"id": 1, "image_id": 139, "caption": 'A "sign".'},
    {"id": 2, "image_id": 7, "caption": "A cat."},
]


def write(root, images=IMAGES, annotations=CAPTIONS, split="val2017") -> None:
    content = {"info": {}, "images": images, "annotations": annotations}
    save_json(root / f"annotations/captions_{split}.json", content)


@pytest.fixture
def root(tmp_path):
    write(tmp_path)
    save_pictures(tmp_path / "val2017", "000000000139.jpg", "000000000007.jpg")
    return tmp_path


def test_all_captions_of_a_picture(root):
    listing = read_set(COCO, root, "val2017")
    assert texts(listing) == {"139": ['A "sign".'], "7": ["A cat, and a dog.", "A cat."]}
    assert listing.missing == [] and listing.notes == []


def test_pictures_by_the_names_of_other_years(root):
    images = [{"id": 139, "file_name": "COCO_val2014_000000000139.jpg"}]
    write(root, images, [{"image_id": 139, "caption": "a"}], "val2014")
    assert read_set(COCO, root, "val2014").records[0].path.name == "000000000139.jpg"
    save_pictures(root / "train2014", "COCO_train2014_000000000011.jpg")
    write(
        root, [{"id": 11, "file_name": "000000000011.jpg"}], [{"image_id": "11", "caption": "a"}], "train2017"
    )
    assert texts(read_set(COCO, root, "train2017")) == {"11": ["a"]}


@pytest.mark.parametrize("spoil", HARMLESS)
def test_harmless_changes_change_nothing(root, spoil):
    before = read_set(COCO, root, "val2017")
    spoil(root / "annotations/captions_val2017.json")
    assert read_set(COCO, root, "val2017") == before


def test_without_picture_without_caption_and_twice(root):
    others = [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}, IMAGES[1]]
    write(root, [*IMAGES, *others[:2]], [*CAPTIONS, {"image_id": 1, "caption": "a"}])
    listing = read_set(COCO, root, "val2017")
    assert list(texts(listing)) == ["139", "7"] and listing.missing == ["1"]
    assert [note.partition("json: ")[2] for note in listing.notes] == [
        "1 images without captions are left out: 2"
    ]


@pytest.mark.parametrize(
    ("images", "captions", "message"),
    [
        (IMAGES[:1], CAPTIONS, "there are captions of image '7', which is not among its images"),
        (IMAGES, [], "this split has no captions"),
        (IMAGES, [{"image_id": 7}], "annotation 0: lacks 'caption'"),
        (IMAGES, [{"image_id": 7, "caption": ""}], "annotation 0: caption: expected a text, found ''"),
        (IMAGES, [{"image_id": 1.5, "caption": "a"}], "annotation 0: expected an id, a number or a string"),
        ([{"id": 7}], CAPTIONS, "image 0: lacks 'file_name'"),
        ({}, CAPTIONS, "images: expected a list, found '{}'"),
        (IMAGES, [3], "annotation 0: expected an object, found '3'"),
    ],
)
def test_what_is_wrong_is_named(root, images, captions, message):
    write(root, images, captions)
    with pytest.raises(InputError, match=rf"captions_val2017\.json: {message}"):
        COCO.read(Files(root, root), "val2017")


def test_what_is_not_there(root, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(InputError, match=f"{empty}: none of the 2 files .* such as 000000000139.jpg"):
        COCO.read(Files(root, empty), "val2017")
    with pytest.raises(InputError, match="looked for captions_train2017.json"):
        COCO.read(Files(root, root), "train2017")
    with pytest.raises(
        InputError, match="no split 'val'; this set has train2014, val2014, train2017, val2017"
    ):
        COCO.read(Files(root, root), "val")
