"""What a run has written down as JSON lines, each with its step: `log.jsonl` in its folder, and its like."""

import json
from pathlib import Path
from typing import TextIO

from coca_video.errors import InputError
from coca_video.files import write_whole

LOG_NAME = "log.jsonl"
EVALUATION = "eval/"  # begins the names of an evaluation's figures


def read_log(folder: Path) -> list[dict[str, float]]:
    """A run's figures, a dictionary a step; evaluations are left out, as is a line cut off by a crash.

    Raises InputError where a line is none of a log's.
    """
    return [line for line in read_steps(folder / LOG_NAME) if not _is_evaluation(line)]


def read_evaluations(folder: Path) -> list[dict[str, float]]:
    """As `read_log`, but the figures of evaluations: "eval/..." after the step that was the last one made."""
    return [line for line in read_steps(folder / LOG_NAME) if _is_evaluation(line)]


def read_steps(path: Path) -> list[dict]:
    """The lines of a file of JSON lines that each have a "step"; one cut off by a crash is left out.

    Raises InputError, naming the line, for any other.
    """
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # what no line end follows is cut off
    return [_parsed(line, path, number) for number, line in enumerate(lines, start=1)]


def drop_steps_from(path: Path, first_step: int) -> None:
    """What was written after the checkpoint that a run resumes from happens again: forget it.

    A line cut off by a crash goes too. Nothing is done where there is no file.
    """
    if path.exists():
        kept = [line for line in read_steps(path) if line["step"] < first_step]
        write_whole(path, "".join(json.dumps(line) + "\n" for line in kept))


def write_line(file: TextIO, line: dict) -> None:
    """Readable by others at once."""
    file.write(json.dumps(line) + "\n")
    file.flush()


def _parsed(line: str, path: Path, number: int) -> dict:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("step"), int):
        raise InputError(
            f'{path}: line {number} is no JSON object with a "step", a whole number: {line[:60]!r}'
        )
    return found


def _is_evaluation(line: dict) -> bool:
    return any(key.startswith(EVALUATION) for key in line)
