import fcntl
import os
import re
import select
import struct
import sys
import termios

import pytest

from coca_video.training.progress import Bar, Lines, open_progress, summary


def test_what_is_known_is_shown():
    assert summary({"loss": 1.23456, "lr": 0.1}) == "loss 1.235"
    figures = {"loss": 1.0, "samples_per_second": 512.4, "data_wait": 0.034, "mfu": 0.413}
    assert summary(figures) == "loss 1.000, 512 samples/s, wait 3%, MFU 41%"
    assert summary({"loss": 1.0, "samples_per_second": 0.44, "data_wait": 0.0}).endswith(
        "0.4 samples/s, wait 0%"
    )


def test_the_bar_starts_where_the_run_does(capsys):
    bar = Bar("run", first_step=4, num_steps=10)
    for _ in range(2):
        bar.step("loss 5.000")
    bar.note("half of it")
    bar.close()
    found = capsys.readouterr().err
    assert re.search(r"run: +60%.* 6/10 .*loss 5.000", found.split("\r")[-1])
    assert "half of it\n" in found


def test_the_bar_is_not_drawn_at_every_step(capsys):
    bar = Bar("run", first_step=0, num_steps=20_000)
    for _ in range(20_000):
        bar.step("loss 5.000")
    bar.close()
    assert capsys.readouterr().err.count("\r") < 2000


def lines(*, seconds: float, first_step: int, num_steps: int, made: int) -> None:
    progress = Lines("run", first_step=first_step, num_steps=num_steps, seconds=seconds)
    for number in range(made):
        progress.step(f"loss {number}")
    progress.close()


def test_the_first_and_the_last_step_have_a_line(capsys):
    lines(seconds=1e9, first_step=4, num_steps=10, made=5)
    first, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"run: step 5/10 \(50%\), loss 0, \d+:\d\d:\d\d left", first)
    assert re.fullmatch(r"run: step 9/10 \(90%\), loss 4, \d+:\d\d:\d\d left", last)


def test_lines_come_when_they_are_due_and_once(capsys):
    lines(seconds=0, first_step=0, num_steps=4, made=4)
    found = [line.split(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert found == [f"run: step {step}/4 ({25 * step}%)" for step in (1, 2, 3, 4)]


@pytest.mark.parametrize("made", [0, 1])
def test_a_line_is_not_said_twice(capsys, made):
    lines(seconds=1e9, first_step=0, num_steps=4, made=made)
    assert len(capsys.readouterr().err.splitlines()) == made


def test_a_file_has_no_carriage_returns(capsys):
    progress = open_progress("run", first_step=0, num_steps=2)
    progress.step("loss 1")
    progress.note("a note")
    progress.close()
    found = capsys.readouterr().err
    assert "\r" not in found and found.endswith("\na note\n")


def test_a_terminal_has_a_bar(monkeypatch):
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))  # 24 lines of 100
    with open(slave, "w") as terminal, open(master, "rb", buffering=0):
        monkeypatch.setattr(sys, "stderr", terminal)
        progress = open_progress("run", first_step=0, num_steps=2)
        progress.step("loss 1")
        progress.close()
        terminal.flush()
        assert b"\rrun:  50%" in read_until(master, b"50%")


def read_until(screen: int, wanted: bytes) -> bytes:
    """What a terminal shows comes in pieces."""
    found = b""
    while wanted not in found and select.select([screen], [], [], 10)[0]:
        found += os.read(screen, 10_000)
    return found
