import pytest
from picture_files import save_pictures
from spoiling import HARMLESS
from video_sets import read_set, texts

from coca_video.data.benchmarks.conceptual_captions import SETS
from coca_video.data.benchmarks.listing import Files
from coca_video.errors import InputError

CC3M, CC12M = SETS
ADDRESS = "https://example.org/a,b.jpg?x=1"
QUOTED = 'a "quoted, sign" that says "hi'


@pytest.fixture
def root(tmp_path):
    save_pictures(tmp_path, "train/a.jpg", "other/b.jpg", "00012/000120003.jpg", "00012/000120004.webp")
    return tmp_path


def write(root, *rows: tuple[str, ...], name="Train_GCC-training.tsv") -> None:
    (root / name).write_text("".join("\t".join(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    "row",
    [
        ("train/a.jpg", QUOTED),
        (QUOTED, "train/a.jpg"),
        (ADDRESS, QUOTED, "train/a.jpg"),
        (QUOTED, ADDRESS, "train/a.png"),
    ],
)
def test_columns_in_any_order(root, row):
    write(root, row)
    listing = read_set(CC3M, root, "train")
    assert [record.text for record in listing.records] == [QUOTED]
    assert listing.records[0].path == root / "train/a.jpg"


def test_keys_of_img2dataset(root):
    rows = ("000120004", "four", ADDRESS), ("000120003", "3", ADDRESS), ("000120005", "five", ADDRESS)
    write(root, *rows, name="cc12m.tsv")
    listing = read_set(CC12M, root, "train")
    assert texts(listing) == {"000120004": ["four"], "000120003": ["3"]} and listing.missing == ["000120005"]


def test_a_header(root):
    write(root, ("url", "Caption", "key"), ("not an address", "12", "000120003"), name="cc12m.tsv")
    assert texts(read_set(CC12M, root, "train")) == {"000120003": ["12"]}


def test_other_folders_hold_other_pictures(root):
    write(root, ("train/a.jpg", "a"), ("train/b.jpg", "b"), ("a.jpg", "c"), ("train/a.jpg", "a"))
    listing = read_set(CC3M, root, "train")
    assert list(texts(listing)) == ["train/a.jpg"] and listing.missing == ["train/b.jpg", "a.jpg"]
    assert "1 listed twice: train/a.jpg" in listing.notes[0]


def test_val_and_subfolders(root):
    (root / "annotations").mkdir()
    write(root, ("train/a.jpg", "a"), name="annotations/Validation_GCC-1.1.0-Validation.tsv")
    assert list(texts(read_set(CC3M, root, "val"))) == ["train/a.jpg"]


@pytest.mark.parametrize("spoil", HARMLESS)
def test_harmless_changes_change_nothing(root, spoil):
    write(root, ("train/a.jpg", QUOTED), ("other/b.jpg", "b"))
    before = read_set(CC3M, root, "train")
    spoil(root / "Train_GCC-training.tsv")
    assert read_set(CC3M, root, "train") == before


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a caption", ADDRESS)], ": says of which address .* not which file; .* the set 'folder'"),
        ([("a caption", "another")], ": expected one column of captions, found columns of caption, caption"),
        ([("train/a.jpg", ADDRESS)], ": expected one column of captions, found columns of path, url"),
        ([("train/a.jpg", "a"), ("train/a.jpg", "a", "b")], ":2: expected 2 fields, found 3"),
        ([("train/a.jpg", "a"), ("one field",)], ":2: expected 2 fields, found 1"),
        ([("path", "caption"), ("train/a.jpg", "")], ":2: the caption is empty"),
        ([("path", "caption"), ("", "a")], ":2: the path is empty"),
        ([("path", "caption")], ": lists no examples"),
        ([], ": is empty"),
    ],
)
def test_what_is_wrong_is_named(root, rows, message):
    write(root, *rows)
    with pytest.raises(InputError, match=rf"Train_GCC-training\.tsv{message}"):
        CC3M.read(Files(root, root), "train")


def test_what_is_not_there(root, tmp_path_factory):
    write(root, ("train/a.jpg", "a"))
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(InputError, match=f"{empty}: none of the 1 files .* such as train/a.jpg"):
        CC3M.read(Files(root, empty), "train")
    with pytest.raises(InputError, match=r"looked for Validation\*.tsv"):
        CC3M.read(Files(root, root), "val")
    with pytest.raises(InputError, match="no split 'val'; this set has train"):
        CC12M.read(Files(root, root), "val")
