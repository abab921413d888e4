"""Tables as publishers write them: CSV, TSV, JSON, JSON lines, parquet; the only module that imports pyarrow.

Byte-order marks, CRLF and quoted fields are read as they are meant. Every error names file and line.
"""

import csv
import importlib
import importlib.util
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coca_video.errors import InputError

csv.field_size_limit(2**27)


class Row(dict):
    """A row by its columns' names; `where` is its file and line, for messages."""

    where: str


class Fields(list):
    """A row without names; `where` is its file and line, for messages."""

    where: str


def read_rows(path: Path, columns: Sequence[str], *, delimiter: str = ",") -> list[Row]:
    """The rows of a table with a header, each with at least `columns`; all values are strings, stripped.

    Further columns are kept. Raises InputError for a missing column, or too few or many fields in a row.
    """
    lines = _records(path, delimiter)
    header = next(lines, None)
    if header is None:
        raise InputError(f"{path}: is empty; expected a header with {', '.join(columns) or 'names'}")
    names = [name.strip() for name in header[1]]
    if missing := [column for column in columns if column not in names]:
        raise InputError(f"{path}: lacks the column {missing[0]!r}; it has {', '.join(names)}")
    rows = []
    for number, fields in lines:
        _check_width(path, number, fields, len(names))
        row = Row(zip(names, fields))
        row.where = fields.where
        rows.append(row)
    return rows


def read_fields(path: Path, num_fields: int, *, delimiter: str = ",", at_least: bool = False) -> list[Fields]:
    """The rows of a table without header; each has `num_fields` fields (or more, with `at_least`)."""
    rows = []
    for number, fields in _records(path, delimiter):
        if not at_least or len(fields) < num_fields:
            _check_width(path, number, fields, num_fields)
        rows.append(fields)
    return rows


def read_words(path: Path, num_words: int, *, at_least: bool = False) -> list[Fields]:
    """The lines of a text file, split at spaces; each has `num_words` words (or more, with `at_least`)."""
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        words = Fields(line.split())
        words.where = f"{path}:{number}"
        if not words:
            continue
        if len(words) < num_words or (len(words) > num_words and not at_least):
            raise InputError(f"{words.where}: expected {num_words} words, found {len(words)}: {line[:60]!r}")
        rows.append(words)
    return rows


def read_json(path: Path, kind: type = dict) -> Any:
    """A JSON file whose outermost value is a `kind`, dict or list."""
    try:
        value = json.loads(read_text(path))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, kind):
        raise InputError(f"{path}: expected a JSON {_name(kind)}, found a {_name(type(value))}")
    return value


def read_json_lines(path: Path, keys: Sequence[str] = ()) -> list[Row]:
    """One object a line, each with `keys`."""
    found = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise InputError(f"{path}:{number}: not JSON ({error})") from error
            row = Row(need_keys(entry, keys, where=f"{path}:{number}"))
            row.where = f"{path}:{number}"
            found.append(row)
    return found


def read_parquet(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a parquet file, with these columns alone."""
    names = parquet_columns(path)
    if missing := [column for column in columns if column not in names]:
        raise InputError(f"{path}: lacks the column {missing[0]!r}; it has {', '.join(names)}")
    with _parquet(path) as parquet:
        return parquet.read_table(path, columns=list(columns)).to_pylist()


def parquet_columns(path: Path) -> list[str]:
    """The names of a parquet file's columns."""
    with _parquet(path) as parquet:
        return parquet.read_schema(path).names


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    """The module pyarrow.parquet; its errors become the user's."""
    if importlib.util.find_spec("pyarrow") is None:
        raise InputError(f"{path}: parquet files need pyarrow: pip install 'coca-video[parquet]'")
    pyarrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    try:
        yield parquet
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]})") from error


def need_keys(entry: Any, keys: Sequence[str], *, where: str) -> dict:
    """`entry` if it is an object with these keys."""
    if not isinstance(entry, dict):
        raise InputError(f"{where}: expected an object, found {str(entry)[:60]!r}")
    if missing := [key for key in keys if key not in entry]:
        raise InputError(f"{where}: lacks {missing[0]!r}; it has {', '.join(map(str, entry)) or 'nothing'}")
    return entry


def read_text(path: Path) -> str:
    """UTF-8, with or without byte-order mark; line ends as \\n."""
    try:
        return path.read_text(encoding="utf-8-sig").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read this file: {error}") from error


def _records(path: Path, delimiter: str) -> Iterator[tuple[int, Fields]]:
    """Line number and stripped fields of every row that is not blank."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            # Publishers of tab-separated files do not quote, and captions hold quotation marks.
            quoting = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
            reader = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)
            for fields in reader:
                if any(field.strip() for field in fields):
                    row = Fields(field.strip() for field in fields)
                    row.where = f"{path}:{reader.line_num}"
                    yield reader.line_num, row
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read this file: {error}") from error
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not a well-formed table row ({error})") from error


def _check_width(path: Path, number: int, fields: list[str], wanted: int) -> None:
    if len(fields) != wanted:
        raise InputError(
            f"{path}:{number}: expected {wanted} fields, found {len(fields)}: {','.join(fields)[:60]!r}"
        )


def _name(kind: type) -> str:
    return {dict: "object", list: "list"}.get(kind, kind.__name__)
