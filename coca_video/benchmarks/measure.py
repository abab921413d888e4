"""Times and peak memory of two or more sides, always in one run and taking turns."""

import multiprocessing
import re
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from coca_video.errors import InputError

CLEAR_REFS = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")


@dataclass
class Measured:
    """One side: the median of its seconds, the most memory of all its runs, in bytes."""

    seconds: float
    above_inputs: int  # peak less what was there before the call
    peak: int  # of the whole process; on CUDA of its tensors
    loss: float  # what the call returned: equal on both sides, or they do not do the same


def take_turns(sides: list[Callable], *, repeats: int, device: torch.device) -> list[float]:
    """The median seconds of each side, warmed up once; a busy moment of the machine meets both."""
    taken: list[list[float]] = [[] for _ in sides]
    for i in range(repeats + 1):
        for side, seconds in zip(sides, taken):
            elapsed = seconds_of(side, device)
            if i:
                seconds.append(elapsed)
    return [statistics.median(seconds) for seconds in taken]


def seconds_of(call: Callable, device: torch.device) -> float:
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


# Makes, in the process that will run it, what a side is measured by: a call that returns its loss.
Prepare = Callable[[], Callable[[], float]]


def compare_processes(
    sides: dict[str, Prepare], *, repeats: int, device: torch.device, warm_up: bool = True
) -> dict[str, Measured]:
    """Each side in a fresh process of its own, so that its memory is its own; they take turns.

    A side is a function of a module with its arguments (`functools.partial`): it is pickled.
    warm_up: a first run of each side whose time does not count; its memory does.
    """
    if device.type == "cpu" and not CLEAR_REFS.exists():
        raise InputError(f"device={device}: peak memory is read from {CLEAR_REFS.parent}, which Linux has")
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        pools = {name: stack.enter_context(ProcessPoolExecutor(1, mp_context=spawn)) for name in sides}
        threads = torch.get_num_threads()
        ready = [pools[name].submit(_prepare, prepare, device, threads) for name, prepare in sides.items()]
        for future in ready:
            future.result()  # or what was raised there
        runs: dict[str, list[Measured]] = {name: [] for name in sides}
        for _ in tqdm(range(repeats + warm_up), desc="repeats", unit="turn"):
            for name, pool in pools.items():
                runs[name].append(pool.submit(_measure).result())
    return {name: _summary(measured, num_untimed=int(warm_up)) for name, measured in runs.items()}


_prepared: dict = {}  # of a side's process


def _prepare(prepare: Prepare, device: torch.device, num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    _prepared.update(call=prepare(), device=device)


def _measure() -> Measured:
    """One run of what was prepared in this process."""
    call, device = _prepared["call"], _prepared["device"]
    before, peak_since = _start_of_peak(device)
    start = time.perf_counter()
    loss = call()  # a number: CUDA has finished
    seconds = time.perf_counter() - start
    peak = peak_since()
    return Measured(seconds, peak - before, peak, loss)


def _start_of_peak(device: torch.device) -> tuple[int, Callable[[], int]]:
    """Bytes in use now, and what tells the most that were in use since."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device), partial(torch.cuda.max_memory_allocated, device)
    CLEAR_REFS.write_text("5")  # VmHWM begins anew (man 5 proc)
    return _status("VmRSS"), partial(_status, "VmHWM")


def check_memory_is_told() -> None:
    if not STATUS.exists():
        raise InputError(f"memory is read from {STATUS}, which Linux has")


def resident_by_process() -> list[int]:
    """Bytes of this process, and of each that `multiprocessing` has started from it."""
    children = sorted(child.pid for child in multiprocessing.active_children())
    return [_status("VmRSS"), *(_status("VmRSS", Path(f"/proc/{pid}/status")) for pid in children)]


def _status(key: str, file: Path = STATUS) -> int:
    """Bytes."""
    return 1024 * int(re.search(rf"{key}:\s*(\d+) kB", file.read_text())[1])


def _summary(runs: list[Measured], *, num_untimed: int) -> Measured:
    return Measured(
        seconds=statistics.median(run.seconds for run in runs[num_untimed:]),
        above_inputs=max(run.above_inputs for run in runs),
        peak=max(run.peak for run in runs),
        loss=runs[-1].loss,
    )
