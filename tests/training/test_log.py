import json
import re
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from coca_video.run_log import read_log
from coca_video.training.log import RunLog


def write(folder: Path, steps: range, *, offset: float = 0.0) -> None:
    log = RunLog(folder, first_step=steps.start, num_steps=10, name="run")
    for step in steps:
        log.step(step, {"loss": step + offset, "lr": 0.1}, num_samples=4)
    log.close()


def scalars(folder: Path, tag: str) -> dict[int, float]:
    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    return {event.step: event.value for event in board.Scalars(tag)}


def test_a_line_a_step(tmp_path):
    write(tmp_path / "a" / "run", range(3))
    lines = read_log(tmp_path / "a" / "run")
    assert [(line["step"], line["loss"]) for line in lines] == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert {line["lr"] for line in lines} == {0.1}
    assert all(line["samples_per_second"] > 0 for line in lines)


def test_tensorboard_has_the_same_figures(tmp_path):
    write(tmp_path, range(3))
    assert scalars(tmp_path, "loss") == {0: 0.0, 1: 1.0, 2: 2.0}
    speed = {line["step"]: line["samples_per_second"] for line in read_log(tmp_path)}
    assert scalars(tmp_path, "samples_per_second") == pytest.approx(speed)


def test_steps_that_happen_again_are_logged_once(tmp_path):
    write(tmp_path, range(6))
    write(tmp_path, range(4, 8), offset=0.5)
    losses = {line["step"]: line["loss"] for line in read_log(tmp_path)}
    assert losses == {0: 0, 1: 1, 2: 2, 3: 3, 4: 4.5, 5: 5.5, 6: 6.5, 7: 7.5}
    assert len(read_log(tmp_path)) == 8
    assert scalars(tmp_path, "loss") == losses


def test_a_cut_off_line_is_forgotten(tmp_path):
    write(tmp_path, range(2))
    with open(tmp_path / "log.jsonl", "a") as log:
        log.write('{"step": 2, "loss": 1')
    assert [line["step"] for line in read_log(tmp_path)] == [0, 1]
    write(tmp_path, range(2, 4))
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2, 3]


def test_each_line_is_there_at_once(tmp_path):
    log = RunLog(tmp_path, first_step=0, num_steps=2, name="run")
    log.step(0, {"loss": 1.0}, num_samples=1)
    assert [line["step"] for line in read_log(tmp_path)] == [0]
    log.close()


def test_the_bar_starts_where_the_run_does(tmp_path, capsys):
    write(tmp_path, range(4, 6))
    last = capsys.readouterr().err.split("\r")[-1]
    assert re.search(r"run: +60%.* 6/10 .*loss 5.000, \d+ samples/s", last)
