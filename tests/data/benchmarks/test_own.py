import json

import pytest
from copies import write_texts, write_videos
from picture_files import save_pictures
from spoiling import HARMLESS
from video_sets import read_set, texts

from coca_video.data.benchmarks.listing import Files
from coca_video.data.benchmarks.own import SETS
from coca_video.errors import InputError

FOLDER, TABLE = SETS


def test_folders_are_classes(tmp_path):
    write_videos(tmp_path, "red_apple/-b.mp4")
    save_pictures(tmp_path, "red_apple/a.png", "fox/1.jpg")
    write_texts(tmp_path, {"README.txt": "not of a picture"})
    listing = read_set(FOLDER, tmp_path, "all")
    assert listing.classes == ["fox", "red apple"]
    assert [(record.id, record.text, record.labels) for record in listing.records] == [
        ("fox/1.jpg", "fox", {"class": "fox"}),
        ("red_apple/-b.mp4", "red apple", {"class": "red apple"}),
        ("red_apple/a.png", "red apple", {"class": "red apple"}),
    ]


def test_texts_beside_files(tmp_path):
    write_videos(tmp_path, "train/a.mp4")
    save_pictures(tmp_path, "train/deep/er/b.v2.png", "test/c.jpg")
    write_texts(tmp_path, {"train/a.txt": "\ufeffone, two\r\n\r\nthree\r\n", "train/deep/er/b.v2.txt": " b "})
    assert texts(read_set(FOLDER, tmp_path, "train")) == {
        "a.mp4": ["one, two", "three"],
        "deep/er/b.v2.png": ["b"],
    }


def test_folders_that_are_neither_or_both(tmp_path):
    files = Files(tmp_path, tmp_path)
    with pytest.raises(InputError, match="there are no videos or pictures"):
        FOLDER.read(files, "all")
    save_pictures(tmp_path, "part/a.png", "part/fox/b.png")
    for split in ("all", "part"):
        with pytest.raises(
            InputError, match="png: has no .txt beside it, nor does it lie in a folder of its class"
        ):
            FOLDER.read(files, split)
    write_texts(tmp_path, {"part/a.txt": "a"})
    with pytest.raises(InputError, match="1 of 2 files have a .txt beside them, fox/b.png has none"):
        FOLDER.read(files, "part")
    write_texts(tmp_path, {"part/fox/b.txt": "\n"})
    with pytest.raises(InputError, match="part/fox/b.txt: there is no text"):
        FOLDER.read(files, "part")
    with pytest.raises(InputError, match="no split 'test'; this set has all, part"):
        FOLDER.read(files, "test")


ROWS = [
    {"path": "clips/a.mp4", "text": 'one, "two"', "label": "fox"},
    {"path": "-b.png", "text": "b", "label": "apple"},
    {"path": "clips/a.mp4", "text": "three", "label": "fox"},
]
EXPECTED = {"clips/a.mp4": ['one, "two"', "three"], "-b.png": ["b"]}
CSV = 'Path,text,label\nclips/a.mp4,"one, ""two""",fox\n-b.png,b,apple\nclips/a.mp4,three,fox\n'


@pytest.fixture
def root(tmp_path):
    write_videos(tmp_path, "clips/a.mp4")
    save_pictures(tmp_path, "-b.png", "other/c.png")
    return tmp_path


def write(root, ending: str) -> None:
    path = root / f"mine{ending}"
    if ending == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(ROWS), path)
    elif ending == ".tsv":
        lines = [list(ROWS[0]), *(list(row.values()) for row in ROWS)]
        path.write_text("".join("\t".join(line) + "\n" for line in lines))
    else:
        lines = "".join(json.dumps(row) + "\n" for row in ROWS)
        path.write_text({".csv": CSV, ".jsonl": lines, ".json": json.dumps(ROWS)}[ending])


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_tables_of_every_kind(root, ending):
    write(root, ending)
    listing = read_set(TABLE, root, "mine")
    assert texts(listing) == EXPECTED and listing.classes == ["apple", "fox"]
    assert [record.labels for record in listing.records] == [{"class": "fox"}, {"class": "apple"}]
    assert listing == TABLE.read(Files(root, root), f"mine{ending}")


@pytest.mark.parametrize("spoil", HARMLESS)
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl"])
def test_harmless_changes_change_nothing(root, spoil, ending):
    write(root, ending)
    spoil(root / f"mine{ending}")
    assert texts(read_set(TABLE, root, "mine")) == EXPECTED


def test_ids_tell_rows_apart(root):
    write_texts(
        root, {"lists/t.csv": "key,video,sentence\n-1,clips/a,x\n007,clips/a,y\n-1,clips/a,x\n9,gone,z\n"}
    )
    listing = read_set(TABLE, root, "lists/t.csv")
    assert (
        texts(listing) == {"-1": ["x"], "007": ["y"]} and listing.missing == ["9"] and listing.classes == []
    )
    assert "1 listed twice: -1" in listing.notes[0]


def test_labels_alone_and_several_texts_in_a_row(root):
    write_texts(root, {"labels.csv": "file,class\n-b.png,red apple\n"})
    (record,) = read_set(TABLE, root, "labels").records
    assert record.text == "red apple" and record.labels == {"class": "red apple"}
    write_texts(root, {"lists.jsonl": '{"image": "-b.png", "captions": ["a ", "b"], "label": 3}\n'})
    (record,) = read_set(TABLE, root, "lists").records
    assert record.texts == ["a", "b"] and record.labels == {"class": "3"}


def test_columns_of_other_names(root):
    write_texts(root, {"t.csv": "path,what,text\nold,-b.png,x\n"})
    listing = TABLE.read(Files(root, root, {"path": "what"}), "t")
    assert texts(listing) == {"-b.png": ["x"]}
    for columns, message in (
        ({"path": "where"}, "t.csv: lacks the column 'where'; it has path, what, text"),
        ({"name": "what"}, "columns: name is not a part of a table; allowed are path, text, label, id"),
    ):
        with pytest.raises(InputError, match=message):
            TABLE.read(Files(root, root, columns), "t")


def test_files_are_where_the_table_says(root):
    absolute = root / "other/c.png"
    write_texts(root, {"t.csv": f"path,text\nc.png,x\n{absolute},y\n{root}/no.png,z\n"})
    listing = read_set(TABLE, root, "t")
    assert listing.missing == ["c.png", f"{root}/no.png"] and listing.records[0].path == absolute


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("a,b\n1,2\n", r"no column is called path, file, .*; it has a, b"),
        ("path,b\n1,2\n", r"no column is called text, .*, or label, .*; it has path, b"),
        ("path,text\n", "there are no rows"),
        ("", "is empty; expected a header"),
        ("path,text\n-b.png,\n", r"2: text: expected a text, found ''"),
        ("path,text\n,a\n", r"2: path: expected a text, found ''"),
        ("path,label\n-b.png,\n", r"2: label is empty"),
        ("path,text\n-b.png,a,b\n", r"2: expected 2 fields, found 3"),
        ("path,text,class\n-b.png,a,x\n-b.png,b,y\n", " -b.png has two classes, 'x' and 'y'"),
        ("path,text\nno.png,a\n", "none of the 1 files listed is here, such as no.png"),
    ],
)
def test_what_is_wrong_is_named(root, table, message):
    write_texts(root, {"t.csv": table})
    with pytest.raises(InputError, match=message):
        TABLE.read(Files(root, root), "t")


def test_tables_that_are_none(root):
    files = Files(root, root)
    with pytest.raises(InputError, match="there is no mine; name one table, ending in .csv"):
        TABLE.read(files, "mine")
    write(root, ".csv")
    write(root, ".jsonl")
    with pytest.raises(InputError, match="there are mine.csv, mine.jsonl; name one table"):
        TABLE.read(files, "mine")
    write_texts(
        root, {"t.xlsx": "x", "list.json": "[3]", "rows.jsonl": '{"path": "-b.png", "text": "a"}\n{}\n'}
    )
    with pytest.raises(InputError, match="t.xlsx: its ending says no table"):
        TABLE.read(files, "t.xlsx")
    with pytest.raises(InputError, match="list.json: row 1: expected an object, found '3'"):
        TABLE.read(files, "list")
    with pytest.raises(InputError, match="rows.jsonl:2: path: expected a text, found None"):
        TABLE.read(files, "rows")
