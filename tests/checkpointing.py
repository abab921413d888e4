"""A small thing to train, in one process or several, and what processes do with its checkpoints."""

import os
import re
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from time import sleep

import tiny
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from coca_video.checkpoint import About, checkpoint_path, saved_checkpoints, step_of
from coca_video.data.tokenizer import Tokenizer
from coca_video.data.transforms import Preprocessing
from coca_video.errors import InputError
from coca_video.ops.distributed import num_processes
from coca_video.training.checkpoints import Checkpoints

TOKENIZER = Tokenizer.train(["a fox jumps over a fence", "a fox sleeps"] * 3, vocab_size=307)
CONFIG = tiny.coca_config(text=tiny.text_config(vocab_size=TOKENIZER.vocab_size))
ABOUT = About(CONFIG, TOKENIZER, Preprocessing(), ["here"])


class Trained:
    """A model of which little divides evenly, and its AdamW; each step depends on its number alone."""

    def __init__(self, *, sharded: bool = False):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 3))
        if sharded:
            fully_shard(self.model[0])
            fully_shard(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01, betas=(0.8, 0.9))
        self.step = 0

    def train(self, num_steps: int) -> "Trained":
        """All processes see the same rows, so that their mean gradient is that of one process."""
        for _ in range(num_steps):
            rows = torch.randn(4, 5, generator=torch.Generator().manual_seed(self.step))
            self.optimizer.zero_grad()
            self.model(rows).square().sum().backward()
            self.optimizer.step()
            self.step += 1
        return self

    def state(self) -> dict:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer, "step": self.step}

    def save(self, checkpoints: Checkpoints) -> None:
        checkpoints.save(self.step, state=self.state(), weights=self.model.state_dict(), about=ABOUT)

    def resume(self, checkpoints: Checkpoints) -> "Trained":
        state = self.state()
        reached = checkpoints.resume(state)
        self.step = state["step"]
        assert reached == self.step
        model, optimizer = state["model"], state["optimizer"]
        set_state_dict(self.model, self.optimizer, model_state_dict=model, optim_state_dict=optimizer)
        return self


def whole(value):
    """A state without shards."""
    if isinstance(value, DTensor):
        return value.full_tensor()
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    return [whole(item) for item in value] if isinstance(value, list) else value


def assert_equal(found, expected) -> None:
    """Bit for bit."""
    if isinstance(expected, Tensor):
        assert found.dtype == expected.dtype and torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_equal(found[key], value)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected) and type(found) is type(expected)
        for one, other in zip(found, expected):
            assert_equal(one, other)
    else:
        assert found == expected


def copied(value):
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def save_trained(run: Path, sharded: bool, expected: Path, rank: int) -> None:
    """Saves after three steps and trains on at once; what comes back is what was then."""
    trained = Trained(sharded=sharded).train(3)
    before = copied(whole(trained.state()))
    with Checkpoints(run, keep_last=1) as checkpoints:
        trained.save(checkpoints)
        trained.train(2)
        checkpoints.wait()
        again = Trained(sharded=sharded).resume(checkpoints)
    assert_equal(whole(again.state()), before)
    assert_equal(whole(again.train(2).state()), whole(trained.state()))
    if rank == 0:
        torch.save(before, expected)


def resume_trained(run: Path, sharded: bool, expected: Path, rank: int = 0) -> None:
    with Checkpoints(run, keep_last=1) as checkpoints:
        trained = Trained(sharded=sharded).resume(checkpoints)
    assert_equal(whole(trained.state()), torch.load(expected))


def fail_in_the_last_process(run: Path, rank: int) -> None:
    """Its files may not be as large as its share: all processes learn of it at the same step."""
    is_last = rank == num_processes() - 1
    trained = Trained().train(1)
    with Checkpoints(run, keep_last=1) as checkpoints:
        trained.save(checkpoints)
        checkpoints.wait()
        trained.train(1)
        with files_of_at_most(100) if is_last else nullcontext():
            trained.save(checkpoints)
            num_checks = checks_until_a_failure(checkpoints, checkpoint_path(run, 2))
        counts = [None] * num_processes()
        dist.all_gather_object(counts, num_checks)
        assert len(set(counts)) == 1
        assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-0000001"]
        dist.barrier()
        trained.save(checkpoints)  # there is room again
        checkpoints.wait()
        assert step_of(checkpoints.newest()) == 2


def checks_until_a_failure(checkpoints: Checkpoints, path: Path) -> int:
    last = saved_checkpoints(checkpoints.run)[-1]
    expected = rf"{path}: could not be written \(.*File too large.*\); the last good checkpoint is {last}"
    for num_checks in range(10_000):
        try:
            checkpoints.check()
        except InputError as error:
            assert re.fullmatch(expected, str(error)), error
            return num_checks
        sleep(0.001)
    raise AssertionError("no failure was raised")


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """As a full disk, for this process alone."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


def dies_at_file_event(number: int, work: Callable[[], None]) -> bool:
    """Whether a copy of this process gets so far: it is killed as it opens, makes, renames or removes one."""
    child = os.fork()
    if child == 0:
        remaining = iter(range(number))
        sys.addaudithook(partial(_kill_when_used_up, remaining))
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


FILE_EVENTS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir"}


def _kill_when_used_up(remaining: Iterator[int], event: str, arguments: tuple) -> None:
    if event in FILE_EVENTS and next(remaining, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
