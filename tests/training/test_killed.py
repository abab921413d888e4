"""kill -9 at any moment, a save in the background included, and the same command again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from runs import assert_same_runs

from coca_video.checkpoint import saved_checkpoints

TESTS = Path(__file__).parent.parent
CHANGES = ["loop.save_every=2", "loop.optimizer.lr=1e-3"]


def start(root: Path, output: Path, record: Path, num_steps: int) -> subprocess.Popen:
    command = [sys.executable, str(TESTS / "killed_run.py"), root, output, record]
    command += [*CHANGES, f"loop.num_steps={num_steps}"]
    environment = os.environ | {"PYTHONPATH": f"{TESTS.parent}:{TESTS}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def kill_in(process: subprocess.Popen, output: Path, *, rng: random.Random) -> None:
    """Somewhere within the next steps and saves; never before one step more is saved than before."""
    before = saved_checkpoints(output)
    while process.poll() is None and saved_checkpoints(output)[-1:] == before[-1:]:
        time.sleep(0.005)
    time.sleep(rng.uniform(0, 0.3))
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize(("num_kills", "num_steps"), [(1, 16), pytest.param(20, 60, marks=pytest.mark.slow)])
def test_killed_and_resumed_equals_unbroken(emoji_root, tmp_path, num_kills, num_steps):
    outputs = {name: tmp_path / name for name in ("unbroken", "killed")}
    unbroken = start(emoji_root, outputs["unbroken"], tmp_path / "unbroken.jsonl", num_steps)
    assert not unbroken.wait(120), unbroken.communicate()

    rng, kills = random.Random(0), 0
    while kills < num_kills:
        process = start(emoji_root, outputs["killed"], tmp_path / "killed.jsonl", num_steps)
        kill_in(process, outputs["killed"], rng=rng)
        assert process.returncode == -signal.SIGKILL, "the run was over before it could be killed"
        kills += 1
    last = start(emoji_root, outputs["killed"], tmp_path / "killed.jsonl", num_steps)
    assert not last.wait(120), last.communicate()

    assert_same_runs(outputs["killed"], outputs["unbroken"])
    assert not list(outputs["killed"].rglob("*.tmp"))
    seen, expected = (samples(tmp_path / f"{name}.jsonl", num_steps) for name in ("killed", "unbroken"))
    assert seen == expected
    # Each step has four pictures of eight, two clips of four: an epoch is two steps.
    for epoch in range(num_steps // 2):
        counts = Counter(key for step in (2 * epoch, 2 * epoch + 1) for key in seen[step])
        assert len(counts) == 12 and set(counts.values()) == {1}


def samples(record: Path, num_steps: int) -> list[list[str]]:
    """Of each step, the keys of its samples: those of the last time that it was made."""
    made = dict(json.loads(line) for line in record.read_text().splitlines())
    return [made[step] for step in range(num_steps)]
