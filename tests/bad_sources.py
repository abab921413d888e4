"""Sources whose samples bring down whoever reads them: here, where another process can import it."""

import os
import signal
import time
from collections.abc import Callable

import torch

from coca_video.data.captions import Captions
from coca_video.data.manifest import ClipRecord
from coca_video.data.sources import Source
from coca_video.errors import InputError


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    time.sleep(600)  # seconds, far beyond every time limit of the tests


def refuse() -> None:
    raise InputError("5: is\nrefused")


def fail() -> None:
    raise ZeroDivisionError("division by zero")


def lose() -> None:
    raise PermissionError(13, "Permission denied", "/data/5")


ACTIONS: dict[str, Callable[[], None]] = {
    "kill": kill,
    "hang": hang,
    "refuse": refuse,
    "fail": fail,
    "lose": lose,
}


class Numbers(Source):
    """Sample i has the text "number i" and one to three frames of the value i; their red is random.

    actions: what happens where a sample is read.
    """

    path = "numbers"
    frame_size = 4

    def __init__(self, num: int, *, actions: dict[int, str] | None = None, captions: Captions = Captions()):
        self.num, self.actions, self.captions = num, actions or {}, captions

    @property
    def sizes(self) -> list[int]:
        return [self.num]

    def record(self, index: int) -> ClipRecord:
        return ClipRecord(None, f"number {index}", {"parity": "even" if index % 2 == 0 else "odd"})

    def key(self, index: int) -> str:
        return str(index)

    def is_video(self, index: int) -> bool:
        return True

    def frames_of(self, record: ClipRecord, rng) -> torch.Tensor:
        index = int(record.text.split()[1])
        if index in self.actions:
            ACTIONS[self.actions[index]]()
        noise = rng.randrange(100) if rng else 0
        frames = torch.full((1 + index % 3, 3, 4, 4), index, dtype=torch.uint8)
        frames[:, 0] = noise
        return frames
