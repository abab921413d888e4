"""What the tests have a job's tasks do, where a task can import it: training's manners without its work."""

import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from coca_video.errors import InputError
from coca_video.training.signals import stop_requested


def train() -> int:
    """Joins its neighbours, and in its first life works until it is asked to stop.

    sys.argv[1] is the folder for what each process has seen: RANK.LIFE.
    """
    folder, life = Path(sys.argv[1]), 1
    while (folder / f"{os.environ['RANK']}.{life}").exists():
        life += 1
    dist.init_process_group("gloo")
    sum_of_ranks = torch.tensor([dist.get_rank()])
    dist.all_reduce(sum_of_ranks)
    seen = [os.environ[key] for key in ("RANK", "LOCAL_RANK", "WORLD_SIZE")] + [str(sum_of_ranks.item())]
    with stop_requested() as stop:
        (folder / f"{os.environ['RANK']}.{life}").write_text(" ".join(seen))
        for _ in range(3000 if life == 1 else 0):
            if stop.wish:
                break
            time.sleep(0.01)
    dist.destroy_process_group()
    return stop.wish.exit_code if stop.wish else 0


def refuse() -> int:
    raise InputError(f"{sys.argv[1]}: is bad")


def write_argument_and_be_preempted() -> int:
    """A life of no length."""
    print(f"trains {sys.argv[1]} as {os.environ['RANK']} of {os.environ['WORLD_SIZE']}", flush=True)
    return 75
