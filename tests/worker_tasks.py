"""What the tests have killable workers do: here, where another process can import it."""

import ctypes
import os
import resource
import signal
import sys
import threading
import time

import numpy as np
import torch

from coca_video.errors import InputError

HANG = 600  # seconds, far beyond every time limit of the tests


def hang() -> None:
    """Sleeps in C with Python's lock in hand, as a deadlocked decoder does."""
    ctypes.PyDLL(None).sleep(HANG)


def die_while_sending() -> bytes:
    """A result that takes a while to send, and death in the middle of it."""
    threading.Thread(target=_die_in, args=["_send"], daemon=True).start()
    return bytes(100_000_000)


def die_while_sharing() -> np.ndarray:
    """The same for one that passes through shared memory."""
    threading.Thread(target=_die_in, args=["_write_array"], daemon=True).start()
    return np.ones(100_000_000, np.uint8)


def _die_in(function: str) -> None:
    """Waits until the process's main thread is in a function of this name."""
    while sys._current_frames()[threading.main_thread().ident].f_code.co_name != function:
        time.sleep(0.001)
    time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


ACTIONS = {
    "abort": os.abort,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: sys.exit(3),
    "hang": hang,
    "sleep": lambda: time.sleep(HANG),
    "send": die_while_sending,
    "share": die_while_sharing,
}


def act(item: object) -> object:
    """Does what an action's name says; anything else comes back doubled."""
    if item in ACTIONS:
        return ACTIONS[item]()
    if item == "refuse":
        raise InputError("a.mp4: is refused")
    return item * 2


def divide(context: dict[str, float], item: int) -> float:
    return context["dividend"] / item


def row(context: torch.Tensor, item: int) -> dict[str, object]:
    """Views of something large."""
    return {"row": context[item], "array": context.numpy()[:, item], "threads": torch.get_num_threads()}


def small_tensor(item: int) -> torch.Tensor:
    return torch.full((3,), item)


def large(item: int) -> dict[str, object]:
    """Arrays and tensors beyond what passes through a pipe, of sizes that leave gaps between them."""
    numbers = torch.arange(1_000_001) + item
    return {"bytes": numbers.to(torch.uint8), "small": numbers[:3], "doubles": numbers.double().numpy()}


def signals_left_alone(item: object) -> list[int]:
    """Those that do not reach this process: they are sent to it, and it goes on."""
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]
    for number in numbers:
        os.kill(os.getpid(), number)
    return numbers


def process(item: object) -> int:
    return os.getpid()


def seconds_to_the_end(item: object) -> float:
    return signal.getitimer(signal.ITIMER_REAL)[0]


def too_large(item: object) -> np.ndarray:
    """What no file may hold, in memory neither."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    return np.ones(2_000_000, np.uint8)


_between: list[float] = []


def seconds_between_tasks(item: object) -> list[float]:
    """The same, a moment after each task of this process before."""

    def note() -> None:
        time.sleep(0.2)
        _between.append(signal.getitimer(signal.ITIMER_REAL)[0])

    threading.Thread(target=note, daemon=True).start()
    return _between


def a_lambda(item: object) -> object:
    return lambda: item


class Unreadable:
    """Fails where it is unpickled."""

    def __reduce__(self) -> tuple:
        return int, ("not a number",)
