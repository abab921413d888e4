"""What the tests have a job's tasks do, where a task can import it."""

import os
import sys

from datasets import call

from coca_video.commands.train import main
from coca_video.errors import InputError


def train(arguments: list[str], rank: int) -> None:
    """To the end, in one of several processes that have joined."""
    assert call(main, *arguments) == 0


def refuse() -> int:
    raise InputError(f"{sys.argv[1]}: is bad")


def write_argument_and_be_preempted() -> int:
    """A life of no length."""
    print(f"trains {sys.argv[1]} as {os.environ['RANK']} of {os.environ['WORLD_SIZE']}", flush=True)
    return 75
