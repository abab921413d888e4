import pytest
from spoiling import HARMLESS
from video_sets import read_set, save_json, save_videos, texts

from coca_video.data.benchmarks.listing import Files
from coca_video.data.benchmarks.youcook2 import SETS
from coca_video.errors import InputError

(YOUCOOK2,) = SETS
NAME = "youcookii_annotations_trainval.json"


def step(number: int, start: float, end: float, sentence: str) -> dict:
    return {"segment": [start, end], "id": number, "sentence": sentence}


def recipe(subset: str, *steps: dict) -> dict:
    return {
        "duration": 241.62,
        "subset": subset,
        "recipe_type": "113",
        "annotations": list(steps),
        "video_url": "https://example.org/watch",
    }


SANDWICH = recipe("validation", step(0, 90, 102, "spread margarine "), step(1, 114, 127.5, "add cheese, ham"))
DATABASE = {
    "-Ld3aX16zBg": SANDWICH,
    "xHr8X2Wpmno": recipe("training", step(0, 10, 20, "peel")),
    "V53XmPeyjIU": recipe("validation", step(1, 9, 12, "pour"), step(0, 2, 5, "stir")),
}


@pytest.fixture
def root(tmp_path):
    save_json(tmp_path / "annotations" / NAME, {"database": DATABASE})
    save_videos(tmp_path / "raw_videos" / "validation" / "113", "-Ld3aX16zBg.mp4", "V53XmPeyjIU.mkv")
    save_videos(tmp_path / "raw_videos" / "training" / "113", "xHr8X2Wpmno.mp4")
    return tmp_path


def test_steps_with_their_spans(root):
    listing = read_set(YOUCOOK2, root, "val")
    assert [(record.id, record.text, record.span) for record in listing.records] == [
        ("-Ld3aX16zBg_0", "spread margarine", [90, 102]),
        ("-Ld3aX16zBg_1", "add cheese, ham", [114, 127.5]),
        ("V53XmPeyjIU_1", "pour", [9, 12]),
        ("V53XmPeyjIU_0", "stir", [2, 5]),
    ]
    assert listing.records[0].path.name == "-Ld3aX16zBg.mp4"
    assert list(texts(read_set(YOUCOOK2, root, "train"))) == ["xHr8X2Wpmno_0"]


def test_paragraphs_are_in_order_of_time(root):
    listing = read_set(YOUCOOK2, root, "val_paragraphs")
    assert texts(listing) == {
        "-Ld3aX16zBg": ["spread margarine add cheese, ham"],
        "V53XmPeyjIU": ["stir pour"],
    }
    assert [record.span for record in listing.records] == [[], []]


@pytest.mark.parametrize("spoil", HARMLESS)
def test_harmless_changes_change_nothing(root, spoil):
    before = texts(read_set(YOUCOOK2, root, "val"))
    spoil(root / "annotations" / NAME)
    assert texts(read_set(YOUCOOK2, root, "val")) == before


def test_steps_that_cannot_be_shown_are_told(root):
    steps = [
        step(0, 5, 5, "a"),
        step(1, 1, 2, " "),
        step(2, 2, 3, "c"),
        step(2, 2, 3, "c"),
        step(3, 4, 5, "d"),
    ]
    save_json(root / "annotations" / NAME, {"database": {"V53XmPeyjIU": recipe("validation", *steps)}})
    listing = read_set(YOUCOOK2, root, "val")
    assert texts(listing) == {"V53XmPeyjIU_2": ["c"], "V53XmPeyjIU_3": ["d"]}
    assert [note.partition("json: ")[2] for note in listing.notes] == [
        "1 whose span has no length, left out: V53XmPeyjIU_0",
        "1 listed twice: V53XmPeyjIU_2",
        "1 with a blank text, which is left out: V53XmPeyjIU_1",
    ]


def test_steps_of_missing_videos_are_listed(root):
    (root / "raw_videos" / "validation" / "113" / "V53XmPeyjIU.mkv").unlink()
    listing = read_set(YOUCOOK2, root, "val")
    assert listing.missing == ["V53XmPeyjIU_1", "V53XmPeyjIU_0"] and listing.num_listed == 4
    assert read_set(YOUCOOK2, root, "val_paragraphs").missing == ["V53XmPeyjIU"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "lacks 'database'"),
        ({"database": []}, "database must be an object"),
        ({"database": {"a": {"subset": "validation"}}}, "a: lacks 'annotations'"),
        ({"database": {"a": {"subset": "validation", "annotations": {}}}}, "a: annotations must be a list"),
        ({"database": {"a": recipe("validation", {"id": 0})}}, "a: lacks 'segment'"),
        (
            {"database": {"a": recipe("validation", step(4, 0, 1, 5))}},
            "a: step 4: expected a text, found '5'",
        ),
        (
            {"database": {"a": recipe("validation", step(4, "0", 1, "a"))}},
            r"a: step 4: expected \[start, end\]",
        ),
        ({"database": {"a": recipe("validation", step(None, 0, 1, "a"))}}, "a: expected an id, found None"),
        ({"database": {"a": recipe("testing", step(0, 0, 1, "a"))}}, "lists nothing of this split"),
    ],
)
def test_what_is_wrong_is_named(root, content, message):
    save_json(root / "annotations" / NAME, content)
    with pytest.raises(InputError, match=rf"trainval\.json: {message}"):
        YOUCOOK2.read(Files(root, root), "val")


def test_no_videos_and_no_such_split(root, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(InputError, match=rf"{empty}: none of the 4 files .* such as -Ld3aX16zBg\.mp4"):
        YOUCOOK2.read(Files(root, empty), "val")
    with pytest.raises(InputError, match=f"looked for {NAME}"):
        YOUCOOK2.read(Files(empty, root), "val")
    with pytest.raises(InputError, match="no split 'test'; this set has train, val"):
        YOUCOOK2.read(Files(root, root), "test")
