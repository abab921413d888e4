"""What a benchmark found, as a table whose last line is the ratio, and as JSON."""

from dataclasses import dataclass, field

MB, GB = 1e6, 1e9


@dataclass
class Result:
    subject: str  # what was measured: model, sizes, precision
    rows: list[list[str]]  # the first holds the columns' names
    figures: dict  # for the JSON file: plain values
    last: str  # the line that is quoted
    notes: list[str] = field(default_factory=list)


def as_text(result: Result, machine: dict) -> str:
    ceilings = (
        f"{machine['device']}, {machine['threads']} threads: {machine['matmul_gflops']:.0f} GFLOPS (matmul), "
        f"{machine['copy_gb_per_second']:.1f} GB/s (copy); torch {machine['torch']}"
    )
    notes = [*result.notes, ""] if result.notes else []
    return "\n".join([result.subject, ceilings, "", *_aligned(result.rows), "", *notes, result.last])


def _aligned(rows: list[list[str]]) -> list[str]:
    """The first column to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in rows
    ]
