import io
import json
import re
from pathlib import Path

import pytest

from coca_video.errors import InputError
from coca_video.run_log import drop_steps_from, read_evaluations, read_log, read_steps, write_line


def write(folder: Path, *lines: dict, end: str = "\n") -> Path:
    path = folder / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + end, encoding="utf-8")
    return path


def test_steps_and_evaluations_are_read_apart(tmp_path):
    steps = [{"step": 0, "loss": 2.0}, {"step": 1, "loss": 1.0}]
    evaluations = [{"step": 0, "eval/top1": 0.5}, {"step": 1, "eval/top1": 0.6, "eval/top5": 0.8}]
    path = write(tmp_path, steps[0], evaluations[0], steps[1], evaluations[1])
    assert read_log(tmp_path) == steps
    assert read_evaluations(tmp_path) == evaluations
    assert read_steps(path) == [steps[0], evaluations[0], steps[1], evaluations[1]]


@pytest.mark.parametrize("cut_off", ['{"step": 2, "lo', '{"step": 2}', ""])
def test_a_line_without_end_was_cut_off(tmp_path, cut_off):
    write(tmp_path, {"step": 0}, {"step": 1}, end=f"\n{cut_off}")
    assert read_log(tmp_path) == [{"step": 0}, {"step": 1}]


@pytest.mark.parametrize("line", ["oops", "[1]", '{"loss": 1}', '{"step": "1"}', "", '{"step": 1.5}'])
def test_any_other_bad_line_is_named(tmp_path, line):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 0}\n' + line + '\n{"step": 1}\n')
    with pytest.raises(InputError, match=rf"log\.jsonl: line 2 is no JSON object .*{re.escape(repr(line))}$"):
        read_log(tmp_path)
    with pytest.raises(InputError, match="line 2"):
        drop_steps_from(path, 1)
    assert path.read_text().startswith('{"step": 0}\n' + line)


def test_steps_that_happen_again_are_dropped(tmp_path):
    lines = [{"step": step, "key": f"{step} | \u2028 \u00e9", "loss": 0.1 + step} for step in (0, 0, 1, 2, 3)]
    path = write(tmp_path, *lines, end='\n{"step": 1')
    drop_steps_from(path, 2)
    assert read_steps(path) == lines[:3] and path.read_text().endswith("}\n")
    drop_steps_from(path, 0)
    assert path.read_text() == ""


def test_no_file_is_nothing_to_drop(tmp_path):
    drop_steps_from(tmp_path / "log.jsonl", 0)
    assert list(tmp_path.iterdir()) == []


def test_a_line_break_within_a_text_is_no_new_line():
    file = io.StringIO()
    write_line(file, {"step": 0, "key": "a\nb\u2028c"})
    assert file.getvalue().count("\n") == 1 and json.loads(file.getvalue())["key"] == "a\nb\u2028c"
