"""Being asked to stop: Ctrl-C, and what schedulers send before they take the machine away."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum


class Ending(str, Enum):
    finished = "finished"
    interrupted = "interrupted"  # by Ctrl-C
    preempted = "preempted"  # SIGTERM or SIGUSR1: the same command goes on elsewhere

    @property
    def exit_code(self) -> int:
        """75 is EX_TEMPFAIL of sysexits.h: a scheduler may be told to start the job again on it."""
        return {Ending.finished: 0, Ending.interrupted: 130, Ending.preempted: 75}[self]


MEANINGS = {
    signal.SIGINT: Ending.interrupted,
    signal.SIGTERM: Ending.preempted,
    signal.SIGUSR1: Ending.preempted,
}


class Stop:
    """What the process has been asked for, if anything.

    A process of torchrun's whose torchrun is gone has been preempted: SIGUSR1, which torchrun does not pass
    on, ends it, and nobody would know any more of the processes that it has started.
    """

    def __init__(self) -> None:
        self.asked: Ending | None = None
        self._launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None

    @property
    def wish(self) -> Ending | None:
        if self.asked is None and self._launcher is not None and os.getppid() != self._launcher:
            return Ending.preempted
        return self.asked


@contextmanager
def stop_requested() -> Iterator[Stop]:
    """The first signal is remembered, for the loop to save and stop; a second one acts as before, at once."""
    stop = Stop()
    before = {number: signal.getsignal(number) for number in MEANINGS}

    def request(number: int, frame: object) -> None:
        stop.asked = MEANINGS[signal.Signals(number)]
        for known, handler in before.items():
            signal.signal(known, handler)

    for number in before:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
