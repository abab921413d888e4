"""A comparison to be read: a page of HTML or Markdown, and a short table for a terminal."""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from coca_video.errors import InputError
from coca_video.evaluation.benchmark import WRITTEN
from coca_video.evaluation.comparison import Section, Table, headlines
from coca_video.evaluation.pages import data_uri, page_template
from coca_video.evaluation.results import Result
from coca_video.evaluation.rows import Row
from coca_video.files import write_whole

NUM_LISTED = 5  # missing and unreadable examples that are named
PICTURE = "confusion.png"


@dataclass
class Files:
    """What lies beside a result, from a page's point of view."""

    links: list[tuple[str, str]]  # name and address
    picture: Path | None


def write_comparison(path: Path, sections: list[Section], *, title: str, passed_over: list[str]) -> None:
    """Writes a page of the kind that `path` ends in, .html or .md, whole or not at all.

    Raises InputError for another ending, or a picture of confusion that cannot be read.
    """
    kind = path.suffix.lower()
    if kind not in (".html", ".md"):
        raise InputError(f"{path}: the ending must be .html or .md, got {kind or 'none'!r}")
    page = page_template(f"comparison_page{kind}.j2").render(
        title=title,
        sections=sections,
        headlines=headlines(sections),
        passed_over=passed_over,
        num_listed=NUM_LISTED,
        files=lambda result: _beside(result, path),
        embedded=data_uri,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page)


def _beside(result: Result, page: Path) -> Files:
    """Addresses are relative to the page, so that they hold where both are moved together."""
    folder = result.path.parent
    way = Path(os.path.relpath(folder.absolute(), page.parent.absolute())).as_posix()
    names = [result.path.name, *(name for name in WRITTEN[1:] if (folder / name).is_file())]
    links = [(name, quote(f"{way}/{name}")) for name in names]
    return Files(links, folder / PICTURE if PICTURE in names else None)


def as_text(sections: list[Section]) -> str:
    """A small table for a terminal: of each result its first reading, and the best that is published."""
    return "\n\n".join(_short_table(section, table) for section in sections for table in section.tables)


def _short_table(section: Section, table: Table) -> str:
    shown = table.headline_columns
    head = [f"{section.heading}: {table.title}", *(table.columns[i].full_name for i in shown)]
    ours = [row for row in table.official + table.not_official if row.is_first]
    theirs = table.best_published(shown[0]) if shown else []
    return _aligned([head, *([_short_name(row), *(row.shown[i] for i in shown)] for row in ours + theirs)])


def _short_name(row: Row) -> str:
    return f"  {row.name}, {row.reading}" + (f" ({row.badge})" if row.badge else "")


def _aligned(rows: list[list[str]]) -> str:
    """The first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        f"{name:{widths[0]}}" + "".join(f"{value:>{width + 3}}" for value, width in zip(values, widths[1:]))
        for name, *values in rows
    )
