import socket

import exchanges
import pytest
import torch
from processes import in_processes, start
from tiny import noise

from coca_video.ops.distributed import (
    by_first,
    gather,
    gather_objects,
    joined,
    num_processes,
    own_rows,
    row_counts,
    sum_over_processes,
)


@pytest.mark.parametrize("num_processes", [2, 4])
def test_what_processes_exchange(num_processes, tmp_path):
    works = (
        exchanges.gather_rows,
        exchanges.gather_whole_numbers,
        exchanges.gather_nothing,
        exchanges.sum_and_collect,
        exchanges.work_of_the_first,
    )
    in_processes(tmp_path, *works, num_processes=num_processes)


def test_a_process_alone_has_everything():
    x = noise(3, 5)
    assert num_processes() == 1 and gather(x) is x and sum_over_processes(x) is x
    assert row_counts(x) == [3] and torch.equal(own_rows(x, [3]), x)
    assert gather_objects("a") == ["a"] and by_first(lambda: "b") == "b"


def test_processes_that_torchrun_has_started(tmp_path):
    with socket.create_server(("localhost", 0)) as first, socket.create_server(("localhost", 0)) as second:
        ports = [free.getsockname()[1] for free in (first, second)]
    start(exchanges.join, ports, tmp_path, num_processes=2)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0", "1"]


@pytest.mark.parametrize("device", [None, torch.device("cpu")])
def test_a_process_alone_joins_nothing(device, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined(device):
        assert not torch.distributed.is_initialized()
