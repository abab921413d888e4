"""A run may go on with another number of processes, and with its weights shared out in another way."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from processes import in_processes
from regrouped_runs import CHANGES, Traced, record_of, stop_after
from runs import figures, run

from coca_video.checkpoint import load_checkpoint
from coca_video.training.signals import Ending

NUM_STEPS = 8


def made(record: Path) -> dict[int, list[str]]:
    """The keys of each step that this process made."""
    return dict(json.loads(line) for line in record.read_text().splitlines())


def test_two_processes_then_shards_then_one_equal_an_unbroken_run(emoji_root, tmp_path):
    lives = [(3, "ddp"), (5, "fsdp")]
    in_processes(tmp_path, *(partial(stop_after, tmp_path, emoji_root, *life) for life in lives))
    for name, record in {"run": record_of(tmp_path, 0), "unbroken": tmp_path / "unbroken.jsonl"}.items():
        stream = type("Whole", (Traced,), {"at": -1, "record": record})
        assert run(emoji_root, tmp_path / name, *CHANGES, stream=stream)[1] is Ending.finished

    ours, theirs = (figures(tmp_path / name) for name in ("run", "unbroken"))
    assert len(ours) == len(theirs) == NUM_STEPS
    for name in ("loss", "caption", "contrastive", "scale"):
        assert [line[name] for line in ours] == pytest.approx([line[name] for line in theirs], rel=1e-5)
    ours, theirs = (load_checkpoint(tmp_path / name).model.state_dict() for name in ("run", "unbroken"))
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, atol=1e-5, rtol=0, msg=lambda text: f"{name}: {text}")

    shares = [made(record_of(tmp_path, number)) for number in (0, 1)]
    assert set(shares[1]) == set(range(5))
    for step, keys in made(tmp_path / "unbroken.jsonl").items():
        found = [key for share in shares for key in share.get(step, [])]
        assert sorted(found) == sorted(keys) and len(set(keys)) == 6, step
