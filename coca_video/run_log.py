"""Reading what a run has logged: `log.jsonl` in its folder, one JSON line a step."""

import json
from pathlib import Path

LOG_NAME = "log.jsonl"


def read_log(folder: Path) -> list[dict[str, float]]:
    """A run's figures, a dictionary a step; a line cut off by a crash is left out."""
    lines = (folder / LOG_NAME).read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
