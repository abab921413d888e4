import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from worker_tasks import (
    Unreadable,
    a_lambda,
    act,
    divide,
    large,
    process,
    row,
    seconds_between_tasks,
    seconds_to_the_end,
    signals_left_alone,
    small_tensor,
    too_large,
)

from coca_video.data.workers import Failure, run_killable

TIMEOUT = 30  # seconds; nothing reaches it but what hangs


def values(*arguments: object, num_workers: int = 1, timeout: float = TIMEOUT, **settings: object) -> list:
    found = run_killable(*arguments, num_workers=num_workers, timeout=timeout, **settings)
    return [value for _, value in found]


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_results_come_in_the_order_of_the_items(num_workers):
    items = [3, "a", "refuse", (1,), *range(20)]
    found = list(run_killable(act, items, num_workers=num_workers, timeout=TIMEOUT))
    assert [item for item, _ in found] == items
    refused = Failure("error", "a.mp4: is refused")
    assert [value for _, value in found] == [6, "aa", refused, (1, 1), *range(0, 40, 2)]


def test_a_failing_task_leaves_its_neighbours_alone():
    failures = {
        "abort": Failure("crash", "its process died of SIGABRT"),
        "kill": Failure("crash", "its process died of SIGKILL"),
        "exit": Failure("crash", "its process ended with exit code 3"),
        "hang": Failure("timeout", "took longer than 3 seconds"),
        "sleep": Failure("timeout", "took longer than 3 seconds"),
        "send": Failure("crash", "its process died of SIGKILL"),
        "share": Failure("crash", "its process died of SIGKILL"),
    }
    items = [each for name in failures for each in (name, 1, 2, 3)]
    expected = [failures.get(item, 0 if isinstance(item, str) else item * 2) for item in items]
    assert values(act, items, num_workers=2, timeout=3) == expected


def test_nothing_but_failing_tasks():
    assert {value.kind for value in values(act, ["abort"] * 4, num_workers=2)} == {"crash"}


def test_a_bug_shows_its_traceback():
    with pytest.raises(RuntimeError, match=r"(?s)worker_tasks.py.*ZeroDivisionError: float division by zero"):
        values(divide, [1, 0, 2], context={"dividend": 8.0})
    with pytest.raises(ZeroDivisionError):
        values(divide, [1, 0, 2], context={"dividend": 8.0}, num_workers=0)


def test_what_cannot_be_pickled_is_a_bug():
    with pytest.raises(RuntimeError, match="in a worker process:(?s:.)*lambda"):
        values(a_lambda, [1])
    with pytest.raises(Exception, match="lambda"):
        values(act, [lambda: 1])
    with pytest.raises(RuntimeError, match="before it could begin"):
        values(divide, [1], context=Unreadable())


def test_tensors_and_arrays(capfd):
    context = torch.arange(12).view(3, 4)
    found = values(row, [0, 2], context=context)
    for item, value in zip([0, 2], found):
        assert torch.equal(value["row"], context[item]) and value["threads"] == 1
        assert np.array_equal(value["array"], context[:, item].numpy())
        value["row"] += 1  # neither is read-only
        value["array"][:] = 0


def test_a_view_is_sent_without_what_it_is_a_view_of():
    from coca_video.data.workers import _pickled

    content, arrays = _pickled({"view": torch.zeros(1_000_000)[:3]})
    assert len(content) < 1000 and arrays == []
    content, arrays = _pickled({"view": torch.zeros(4_000_000)[::2]})
    assert len(content) < 1000 and [array.nbytes for array in arrays] == [8_000_000]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_large_results(num_workers):
    found = values(large, [0, 5, 9], num_workers=num_workers)
    for item, value in zip([0, 5, 9], found):  # all are held at once
        numbers = torch.arange(1_000_001) + item
        assert torch.equal(value["bytes"], numbers.to(torch.uint8)) and value["small"].tolist() == [
            item,
            item + 1,
            item + 2,
        ]
        assert value["doubles"].dtype == np.float64 and (value["doubles"] == numbers.numpy()).all()
        value["bytes"] += 1
        value["doubles"][:] = 0


def test_a_result_that_cannot_be_sent_is_no_quiet_end():
    assert values(too_large, [0]) == [Failure("crash", "its process ended with exit code 1")]


def test_what_schedulers_say_is_for_the_caller_alone():
    (numbers,) = values(signals_left_alone, [0])
    assert len(numbers) == 3


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts the open files that /proc lists")
def test_results_hold_no_open_files():
    before = len(os.listdir("/proc/self/fd"))
    found = values(small_tensor, range(200), num_workers=2)
    assert [int(tensor[0]) for tensor in found] == list(range(200))
    shared = values(large, range(20))
    assert len(shared) == 20
    assert len(os.listdir("/proc/self/fd")) < before + 10  # the fork server's stay


def test_items_are_taken_as_they_are_needed():
    taken = []
    found = run_killable(
        act, (taken.append(i) or i for i in range(1000)), num_workers=2, timeout=TIMEOUT, look_ahead=3
    )
    assert taken == []
    assert next(found) == (0, 0) and len(taken) == 6
    assert next(found) == (1, 2) and len(taken) == 7
    found.close()
    assert len(taken) == 7


def test_workers_are_kept():
    assert len(set(values(process, range(40), num_workers=2))) <= 2
    assert os.getpid() not in values(process, range(2)) and values(process, [0], num_workers=0) == [
        os.getpid()
    ]


def test_closing_kills_a_worker_that_hangs():
    before = set(multiprocessing.active_children())
    found = run_killable(act, [1, "hang", 2], num_workers=1, timeout=None)
    assert next(found) == (1, 2)
    (worker,) = set(multiprocessing.active_children()) - before
    found.close()
    assert not worker.is_alive()
    assert set(multiprocessing.active_children()) == before


def test_an_orphan_ends_by_itself():
    (seconds,) = values(seconds_to_the_end, [1], timeout=TIMEOUT)
    assert TIMEOUT < seconds < TIMEOUT + 61


def test_a_worker_that_waits_for_its_next_task_has_no_limit():
    found = run_killable(seconds_between_tasks, range(2), num_workers=1, timeout=TIMEOUT, look_ahead=1)
    assert next(found) == (0, [])
    time.sleep(0.5)
    assert next(found) == (1, [0.0])
    found.close()


def test_a_program_that_forgets_them_ends():
    """With workers at work, and the iterator open: they do not hear that they should go."""
    script = """
        from coca_video.data.workers import run_killable
        from worker_tasks import act

        if __name__ == "__main__":
            found = run_killable(act, [1, "sleep", "sleep"], num_workers=2, timeout=None)
            print(next(found), flush=True)
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "(1, 2)\n", "")


@pytest.mark.skipif(os.name == "nt", reason="process groups")
@pytest.mark.parametrize("moment", ["starting", "hanging"])
def test_ctrl_c_reaches_the_caller_alone(moment):
    script = """
        from coca_video.cli import run
        from coca_video.data.workers import run_killable
        from worker_tasks import act

        def main():
            print("starting", flush=True)
            for _ in run_killable(act, [1, "hang", "hang"], num_workers=2, timeout=60):
                print("hanging", flush=True)

        if __name__ == "__main__":
            run(main)
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    options = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **options) as running:
        while running.stdout.readline() != f"{moment}\n":
            assert running.poll() is None
        os.killpg(running.pid, signal.SIGINT)
        # Both end when the last process that might write to them has ended.
        assert running.communicate(timeout=120) == ("", "interrupted\n")
        assert running.returncode == 130


@pytest.mark.parametrize(
    ("name", "value"), [("num_workers", -1), ("timeout", 0), ("timeout", -1.0), ("look_ahead", 0)]
)
def test_settings_are_checked_at_once(name, value):
    settings = {"num_workers": 1, "timeout": 1.0} | {name: value}
    with pytest.raises(ValueError, match=f"{name}={value}"):
        run_killable(act, [1], **settings)
