import os
import time

import pytest

from coca_video.training.signals import Ending, Stop


@pytest.mark.parametrize("is_torchrun", [True, False])
def test_a_torchrun_that_is_gone(is_torchrun, monkeypatch):
    """Its processes stop and save; a run that was started in another way outlives its shell."""
    if is_torchrun:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "tulips")
    else:
        monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert wishes_of_an_orphan() == [None, Ending.preempted if is_torchrun else None]


def wishes_of_an_orphan() -> list[Ending | None]:
    """Of a process: before and after the end of the one that has started it."""
    told, tell = os.pipe()
    launcher = os.fork()
    if launcher == 0:
        if os.fork() == 0:
            _tell_wishes(tell, launcher=os.getppid())
        os.read(told, 1)  # the orphan is ready
        os._exit(0)
    os.waitpid(launcher, 0)
    os.close(tell)
    with open(told) as answer:
        return [Ending(name) if name else None for name in answer.read().split(",")]


def _tell_wishes(tell: int, *, launcher: int) -> None:
    stop = Stop()
    before = stop.wish
    os.write(tell, b"!")
    while os.getppid() == launcher:
        time.sleep(0.01)
    os.write(tell, ",".join(wish.value if wish else "" for wish in (before, stop.wish)).encode())
    os._exit(0)
