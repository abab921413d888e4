import json

import pytest
from copies import write_texts, write_videos
from spoiling import replace, with_bom, with_crlf
from video_sets import read_set

from coca_video.data.benchmarks.listing import Files
from coca_video.data.benchmarks.ssv2 import SETS
from coca_video.data.benchmarks.vocabulary import class_list
from coca_video.errors import InputError

(SSV2,) = SETS
NAMES = class_list("ssv2").names
TRAIN = [
    {
        "id": "78687",
        "label": "holding potato next to vicks vaporub bottle",
        "template": "Holding [something] next to [something]",
        "placeholders": ["potato", "vicks vaporub bottle"],
    },
    {
        "id": "0042",
        "label": "laying bottle on the table on its side, not upright",
        "template": "Laying [something] on the table on its side, not upright",
        "placeholders": ["bottle"],
    },
    {"id": "3", "label": "closing box", "template": "Closing [something]", "placeholders": ["box"]},
]


@pytest.fixture
def root(tmp_path):
    write_texts(
        tmp_path / "labels",
        {
            "labels.json": json.dumps({name: str(index) for index, name in enumerate(NAMES)}),
            "train.json": json.dumps(TRAIN),
            "validation.json": json.dumps(TRAIN[:1]),
            "test.json": json.dumps([{"id": "1420"}]),
            "test-answers.csv": "1420;Lifting something up completely without letting it drop down\n",
        },
    )
    write_videos(tmp_path / "20bn-something-something-v2", "78687.webm", "0042.webm", "1420.webm")
    return tmp_path


def test_text_is_the_label_and_class_the_template(root):
    listing = read_set(SSV2, root, "train")
    assert [(record.id, record.text, record.labels["class"]) for record in listing.records] == [
        ("78687", "holding potato next to vicks vaporub bottle", "Holding something next to something"),
        (
            "0042",
            "laying bottle on the table on its side, not upright",
            "Laying something on the table on its side, not upright",
        ),
    ]
    assert listing.missing == ["3"]
    assert listing.classes == NAMES and listing.notes == []
    assert [record.id for record in read_set(SSV2, root, "val").records] == ["78687"]


def test_the_test_split_has_its_answers_beside_it(root):
    (record,) = read_set(SSV2, root, "test").records
    assert (
        record.text
        == record.labels["class"]
        == "Lifting something up completely without letting it drop down"
    )
    (root / "labels/test-answers.csv").write_text("7;Closing something\n")
    with pytest.raises(InputError, match=r"test\.json: entry 1: test-answers\.csv has no answer for '1420'"):
        SSV2.read(Files(root, root), "test")
    (root / "labels/test-answers.csv").unlink()
    with pytest.raises(InputError, match="has no labels without test-answers.csv"):
        SSV2.read(Files(root, root), "test")


def test_the_earlier_names_of_the_files(root):
    before = read_set(SSV2, root, "train").records
    for path in (root / "labels").iterdir():
        path.rename(root / f"something-something-v2-{path.name}")
    assert read_set(SSV2, root, "train").records == before


def test_classes_have_the_publishers_order(root):
    backwards = {name: index for index, name in enumerate(reversed(NAMES))}
    (root / "labels/labels.json").write_text(json.dumps(backwards))
    assert read_set(SSV2, root, "train").classes == NAMES[::-1]


def test_few_labels_leave_all_classes(root):
    (root / "labels/labels.json").write_text(json.dumps({"Closing something": "0"}))
    listing = read_set(SSV2, root, "train")
    assert listing.classes == NAMES
    assert any("1 of the 174 classes" in note for note in listing.notes)


@pytest.mark.parametrize("spoil", [with_bom, with_crlf])
@pytest.mark.parametrize("split", ["train", "test"])
def test_other_systems_files_read_the_same(root, spoil, split):
    before = read_set(SSV2, root, split)
    for path in (root / "labels").iterdir():
        spoil(path)
    assert read_set(SSV2, root, split) == before


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "train.json",
            '"template": "Closing',
            '"model": "Closing',
            r"train\.json: entry 3: lacks 'template'",
        ),
        (
            "train.json",
            "Closing [something]",
            "Eating [something]",
            r"entry 3: 'Eating \[something\]' is none",
        ),
        ("train.json", '"0042"', "42", r"train\.json: entry 2: id must be a string, found 42"),
        ("train.json", '"closing box"', '["closing", "box"]', r"entry 3: label must be a string, found \["),
        ("train.json", "]}]", "]}", r"train\.json: not JSON"),
        ("labels.json", '"0"', '"first"', r"labels\.json: 'Approaching .* needs an index, found 'first'"),
    ],
)
def test_wrong_files_are_named(root, file, old, new, message):
    replace(root / "labels" / file, old, new)
    with pytest.raises(InputError, match=message):
        SSV2.read(Files(root, root), "train")


def test_a_list_that_is_none_an_unknown_split_and_no_videos(root, tmp_path):
    with pytest.raises(InputError, match="no split 'validation'; this set has train, val, test"):
        SSV2.read(Files(root, root), "validation")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: none of the 3 files listed is here, such as 78687\.webm"):
        SSV2.read(Files(root, tmp_path / "empty"), "train")
    (root / "labels/train.json").write_text('{"78687": "holding"}')
    with pytest.raises(InputError, match=r"train\.json: expected a JSON list, found a"):
        SSV2.read(Files(root, root), "train")
