import json

import pytest
from spoiling import HARMLESS

from coca_video.data.tables import (
    need_keys,
    parquet_columns,
    read_fields,
    read_json,
    read_json_lines,
    read_parquet,
    read_rows,
    read_text,
    read_words,
)
from coca_video.errors import InputError


@pytest.fixture
def write(tmp_path):
    """Makes a table of a text or of bytes."""

    def write_table(content: str | bytes):
        path = tmp_path / "table"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_table


TEXT = ' id, text \n-1 ,"one, ""two"""\n007, three \n'
ROWS = [{"id": "-1", "text": 'one, "two"'}, {"id": "007", "text": "three"}]


@pytest.mark.parametrize("spoil", [lambda path: None, *HARMLESS])
def test_rows_by_the_names_of_their_columns(write, spoil):
    path = write(TEXT.replace(" id, text ", "id,text"))
    spoil(path)
    assert read_rows(path, ["text"]) == ROWS


def test_names_and_fields_are_stripped_and_lines_known(write):
    path = write(TEXT)
    rows = read_rows(path, ["id", "text"])
    assert rows == ROWS and [row.where for row in rows] == [f"{path}:2", f"{path}:3"]


def test_a_line_break_in_quotes(write):
    path = write('id,text\n1,"one\ntwo"\n2,x,y\n')
    with pytest.raises(InputError, match="table:4: expected 2 fields, found 3: '2,x,y'"):
        read_rows(path, ["id"])
    path = write('id,text\n1,"one\ntwo"\n')
    assert read_rows(path, ["id"]) == [{"id": "1", "text": "one\ntwo"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "table: is empty; expected a header with id, text"),
        ("\n \n", "table: is empty"),
        ("id,label\n", "table: lacks the column 'text'; it has id, label"),
        ("id,text\n1\n", "table:2: expected 2 fields, found 1: '1'"),
        ("id,text\n\n1,2,3\n", "table:3: expected 2 fields, found 3: '1,2,3'"),
        ('id,text\n1,"open\n', "table:2: not a well-formed table row"),
        ('id,text\n1,"a" b\n', "table:2: not a well-formed table row"),
        ("id,text\n1,caf\u00e9\n".encode("latin-1"), "table: cannot read this file: 'utf-8' codec"),
    ],
)
def test_rows_that_are_wrong(write, content, message):
    with pytest.raises(InputError, match=message) as error:
        read_rows(write(content), ["id", "text"])
    assert "\n" not in str(error.value)


def test_tabs_do_not_quote(write):
    path = write('id\ttext\n1\t"a" sign, "b\n')
    assert read_rows(path, ["text"], delimiter="\t") == [{"id": "1", "text": '"a" sign, "b'}]
    assert read_fields(path, 2, delimiter="\t")[1] == ["1", '"a" sign, "b']


def test_fields_without_header(write):
    path = write("-a,b\n\nc,d,e\n")
    with pytest.raises(InputError, match="table:3: expected 2 fields, found 3"):
        read_fields(path, 2)
    rows = read_fields(path, 2, at_least=True)
    assert rows == [["-a", "b"], ["c", "d", "e"]] and rows[1].where == f"{path}:3"
    with pytest.raises(InputError, match="table:1: expected 3 fields, found 2"):
        read_fields(path, 3, at_least=True)
    assert read_fields(write(""), 2) == []


def test_words(write):
    assert read_words(write("a  b\r\n\r\nc d\r\n"), 2) == [["a", "b"], ["c", "d"]]
    with pytest.raises(InputError, match="table:1: expected 2 words, found 3"):
        read_words(write("a b c\n"), 2)


def test_json(write):
    assert read_json(write('\ufeff{"a":\r\n1}')) == {"a": 1}
    for content, message in (
        ('{"a": 1,\n}', r"table: not JSON \(.*line 2 column 1"),
        ("", r"table: not JSON \(Expecting value"),
        ("[1]", "table: expected a JSON object, found a list"),
        (b"\xff", "table: cannot read this file"),
    ):
        with pytest.raises(InputError, match=message):
            read_json(write(content))
    with pytest.raises(InputError, match="expected a JSON list, found a str"):
        read_json(write('"a"'), list)


def test_json_lines(write):
    path = write('{"a": "x\u2028y"}\r\n\r\n{"a": 2}\n')  # a line separator within a text is none
    rows = read_json_lines(path, ["a"])
    assert rows == [{"a": "x\u2028y"}, {"a": 2}] and rows[1].where == f"{path}:3"
    for line, message in (
        ("{", "table:2: not JSON"),
        ("[]", "table:2: expected an object"),
        ("{}", "lacks 'a'"),
    ):
        with pytest.raises(InputError, match=message):
            read_json_lines(write('{"a": 1}\n' + line), ["a"])


def test_a_folder_is_no_file(tmp_path):
    for read in (read_text, read_json, lambda path: read_rows(path, [])):
        with pytest.raises(InputError, match="cannot read this file"):
            read(tmp_path)


def test_need_keys():
    with pytest.raises(InputError, match="f:1: lacks 'b'; it has a"):
        need_keys({"a": 1}, ["a", "b"], where="f:1")
    with pytest.raises(InputError, match="f:1: lacks 'b'; it has nothing"):
        need_keys({}, ["b"], where="f:1")


def test_parquet(tmp_path, write):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"id": "-1", "texts": ["a", "b"], "n": 1}, {"id": None, "texts": [], "n": 2}]
    path = tmp_path / "table.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert parquet_columns(path) == ["id", "texts", "n"]
    assert read_parquet(path, ["texts", "id"]) == [{"texts": row["texts"], "id": row["id"]} for row in rows]
    with pytest.raises(InputError, match="lacks the column 'text'; it has id, texts, n"):
        read_parquet(path, ["text"])
    for bad in (write(json.dumps(rows)), tmp_path / "none.parquet", tmp_path):
        with pytest.raises(InputError, match="not a readable parquet file") as error:
            read_parquet(bad, ["id"])
        assert "\n" not in str(error.value)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="not a readable parquet file"):
        read_parquet(path, ["id"])
