"""Processes that read the same shards at once."""

import multiprocessing
from pathlib import Path

from coca_video.data.shards import ShardSet

FORK = multiprocessing.get_context("fork")  # a process inherits the files that are open
NUM_PROCESSES = 3


def open_in_processes(pattern: str, *, cache: Path, texts: list[str]) -> None:
    """Each process opens the set, all at once, and finds `texts`."""
    _in_processes(lambda: _expect(ShardSet(pattern, cache=cache), texts))


def read_in_processes(found: ShardSet, *, texts: list[str]) -> None:
    """Each process finds `texts` in a set that is in use here."""
    _in_processes(lambda: [_expect(found, texts) for _ in range(10)])


def _in_processes(work) -> None:
    processes = [FORK.Process(target=work) for _ in range(NUM_PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * NUM_PROCESSES


def _expect(found: ShardSet, texts: list[str]) -> None:
    records = list(found)
    assert [record.text for record in records] == texts
    assert all(record.encoded == b"%d" % i * 300 for i, record in enumerate(records))
