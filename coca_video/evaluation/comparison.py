"""Many results side by side: a table for each data set and task, with published figures beside them."""

from dataclasses import dataclass
from typing import Any

from coca_video.evaluation.columns import COLUMNS, HEADLINES, TITLES, UNITS, Column
from coca_video.evaluation.published import SETTINGS
from coca_video.evaluation.results import TASKS, Result
from coca_video.evaluation.rows import Row, published_rows, result_rows


@dataclass
class Table:
    """Of one task on one data set."""

    task: str
    columns: list[Column]
    official: list[Row]
    published: list[Row]
    not_official: list[Row]
    warnings: list[str]  # what makes rows no equals

    @property
    def title(self) -> str:
        return TITLES.get(self.task, self.task)

    @property
    def units(self) -> str:
        return UNITS[self.task]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """What stands above columns, and above how many."""
        names = [column.group for column in self.columns]
        return [(name, names.count(name)) for name in dict.fromkeys(names)] if any(names) else []

    @property
    def parts(self) -> list[tuple[str, list[Row]]]:
        parts = {
            "Official results": self.official,
            "Published figures, of their own protocols": self.published,
            "Not official: not to be compared": self.not_official,
        }
        return [(name, rows) for name, rows in parts.items() if rows]

    @property
    def headline_columns(self) -> list[int]:
        """Numbers of the columns that a summary shows."""
        metrics = [column.metric for column in self.columns]
        return [metrics.index(metric) for metric in HEADLINES[self.task] if metric in metrics]

    def best_published(self, i: int) -> list[Row]:
        """By column i, for each setting that has a figure."""
        by_setting = [[row for row in self.published if row.reading == setting] for setting in SETTINGS]
        best = [_best(rows, i, self.columns[i]) for rows in by_setting]
        return [row for row in best if row]


@dataclass
class Section:
    """All that is known of one data set."""

    dataset: str
    title: str
    split: str
    results: list[Result]
    tables: list[Table]

    @property
    def heading(self) -> str:
        return f"{self.title}, {self.split}" if self.split else self.title


@dataclass
class Bar:
    name: str  # of the model
    about: str
    length: float  # per cent of the longest
    value: str


@dataclass
class Headline:
    """The best of the official results, and of the published figures of each setting."""

    section: Section
    table: Table
    column: Column
    bars: list[Bar]  # ours first


def compare(results: list[Result]) -> list[Section]:
    """Sections by data set and split; in their tables the results keep their order.

    Raises InputError, naming file and key, for a figure that is no number.
    """
    by_set: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        by_set.setdefault((result["dataset"], result["split"]), []).append(result)
    return [_section(of_set) for _, of_set in sorted(by_set.items())]


def headlines(sections: list[Section]) -> list[Headline]:
    """Only where there is an official result: others are not compared with what is published."""
    places = [(s, table, i) for s in sections for table in s.tables for i in table.headline_columns]
    found = [_headline(*place) for place in places]
    return [headline for headline in found if headline]


def _section(results: list[Result]) -> Section:
    first = results[0]
    tasks = [task for task in TASKS if any(task in result.tasks for result in results)]
    tables = [_table(task, [result for result in results if task in result.tasks]) for task in tasks]
    return Section(first["dataset"], first["title"], first["split"], results, tables)


def _table(task: str, results: list[Result]) -> Table:
    rows: dict[bool, list[Row]] = {True: [], False: []}
    for result in results:
        rows[result["official"]] += result_rows(result, task)
    of_others = published_rows(results[0]["dataset"], results[0]["split"], task)
    columns = _keep_used(COLUMNS[task], rows[True] + rows[False] + of_others)
    _mark_best(rows[True], columns)
    return Table(task, columns, rows[True], of_others, rows[False], _differences(results, task))


def _keep_used(columns: tuple[Column, ...], rows: list[Row]) -> list[Column]:
    """Takes the columns without a value out of the rows; the columns that are left."""
    used = [i for i in range(len(columns)) if any(row.values[i] is not None for row in rows)]
    for row in rows:
        row.values = [row.values[i] for i in used]
    return [columns[i] for i in used]


# The best


def _best(rows: list[Row], i: int, column: Column) -> Row | None:
    valued = [row for row in rows if row.values[i] is not None]
    return column.best(valued, key=lambda row: row.values[i]) if column.best and valued else None


def _best_ranked(rows: list[Row], i: int, column: Column) -> Row | None:
    return _best([row for row in rows if row.is_ranked], i, column)


def _mark_best(rows: list[Row], columns: list[Column]) -> None:
    """Rows that show the same value share it."""
    for i, column in enumerate(columns):
        best = _best_ranked(rows, i, column)
        for row in rows:
            if best and row.is_ranked and row.shown[i] == best.shown[i]:
                row.best.add(i)


def _headline(section: Section, table: Table, i: int) -> Headline | None:
    column = table.columns[i]
    # A reading that was chosen by its figures would flatter: a result is represented by its leading one.
    ours = _best_ranked([row for row in table.official if row.is_first], i, column)
    if not ours:
        return None
    best = [ours, *table.best_published(i)]
    longest = max(100.0, *(row.values[i] for row in best))
    bars = [
        Bar(row.name, f"{row.badge} {row.reading}".strip(), 100 * row.values[i] / longest, row.shown[i])
        for row in best
    ]
    return Headline(section, table, column, bars)


# What must be the same for rows to be equals

OF_ALL = ("manifest_sha256", "num_expected")
OF_ONE = ("num_expected", "num_classes", "num_texts")  # of each task


def _differences(results: list[Result], task: str) -> list[str]:
    """A sentence for each thing in which results of the same data set differ."""
    files = sorted({name for result in results for name in result["annotations"]})
    kept = {key: [result[key] for result in results] for key in OF_ALL}
    kept |= {f"sha256 of {name}": [result["annotations"].get(name) for result in results] for name in files}
    kept |= {f"{task}.{key}": [result[f"tasks.{task}"].get(key) for result in results] for key in OF_ONE}
    sentences = [_difference(key, list(map(_short, values)), results) for key, values in kept.items()]
    return [sentence for sentence in sentences if sentence]


def _difference(key: str, values: list[str], results: list[Result]) -> str | None:
    first: dict[str, Result] = {}
    for value, result in zip(values, results):
        first.setdefault(value, result)
    said = [f"{value} in {result.name}" for value, result in first.items()]
    return f"Not made from the same data: {key} is {', '.join(said)}." if len(said) > 1 else None


def _short(value: Any) -> str:
    """A number whole, of a hash its beginning."""
    if value is None:
        return "not known"
    return f"{value:,}" if isinstance(value, int) else str(value)[:16]
