"""What the documentation says of the catalogue is so."""

from pathlib import Path

import pytest

from coca_video.cli import CONFIGS
from coca_video.data.benchmarks.catalogue import SETS

LINES = (Path(__file__).parents[1] / "docs" / "datasets.md").read_text(encoding="utf-8").splitlines()
# A row of the table: | `name` | title | needs | splits | evaluations |
ROWS = {
    cells[1].strip(" `"): [cell.strip() for cell in cells[2:6]]
    for cells in (line.split("|") for line in LINES if line.startswith("| `"))
}


def test_every_set_has_a_row():
    assert set(ROWS) - {"emoji", "shapes"} == set(SETS)


@pytest.mark.parametrize("name", SETS)
def test_rows(name):
    title, layout, splits, evaluations = ROWS[name]
    public_set = SETS[name]
    assert title == public_set.title and layout.replace("&lt;", "<") == public_set.layout
    assert splits == ", ".join(
        split if number is None else f"{split} {number:,}" for split, number in public_set.splits.items()
    )
    made_for = [
        path.stem
        for path in sorted((CONFIGS / "evaluate").glob("*.yaml"))
        if f"data/{name}/manifests/{name}-" in path.read_text()
    ]
    assert evaluations == ", ".join(f"`{each}`" for each in made_for)
