"""A run's checkpoints: written in the background, the last few and the best kept.

A checkpoint is complete or absent, wherever a process is killed: it is written under a temporary name, synced
and renamed once all processes have written their part. One run at a time may write into a folder.
"""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.tensor import DTensor

from coca_video import checkpoint as files
from coca_video.checkpoint import About, checkpoint_path, saved_checkpoints, step_of
from coca_video.errors import InputError
from coca_video.files import write_whole
from coca_video.ops.distributed import num_processes, rank
from coca_video.training import state_folder

PATIENCE = timedelta(hours=2)  # for another process' writing
BEST_NAME = "best.json"


@dataclass
class Best:
    """The best step's figure, as the run's best.json says it."""

    step: int
    figure: str
    value: float

    def is_beaten_by(self, value: float) -> bool:
        return value < self.value if self.figure.startswith("-") else value > self.value


@dataclass
class _Snapshot:
    """What is written of a step; no training changes it."""

    path: Path
    tree: Any  # of the state, without its tensors
    tensors: dict[str, Tensor]  # this process' share
    weights: dict[str, Tensor]  # whole in process 0, none elsewhere
    about: About


class Checkpoints:
    """Of one run. All processes make one, and all call each method, in the same order.

    keep_last: how many of the newest are kept.
    best: the figure whose best step is kept beside them; with a leading "-", as in "-loss", less is better.
    asynchronous: training goes on while a checkpoint is written, which takes a copy in CPU memory.

    A write that fails, be it in one process, leaves the checkpoints before as they are. `check`, `wait` and
    the next `save` raise it as an InputError, in all processes alike.
    """

    def __init__(self, run: Path, *, keep_last: int, best: str | None = None, asynchronous: bool = True):
        self.run, self.keep_last, self.best, self.asynchronous = run, keep_last, best, asynchronous
        # Two groups, as the collectives of a write must not mix with those of training, nor with `check`'s.
        self._training, self._writing = _new_group(), _new_group()
        on_gpu = torch.cuda.is_initialized()
        self._stager = DefaultStager(
            StagingOptions(on_gpu, False, False, on_gpu)
        )  # pinned; no copy is left to do
        self._thread: Thread | None = None
        self._failure: BaseException | None = None
        self._figures: dict[int, float] = {}  # of steps whose checkpoint is not complete yet
        self._folder = Lock()  # a write and `record` both remove what need not be kept
        self._of_first(lambda: run.mkdir(parents=True, exist_ok=True))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self.close()

    def save(self, step: int, *, state: dict[str, Any], weights: dict[str, Tensor], about: About) -> None:
        """Copies the state to CPU memory and writes it in the background, after the write before.

        state: nested dicts, lists and tuples of tensors, DTensors and plain values. What is no DTensor must
            be equal in all processes: one of them writes it.
        weights: for `load_checkpoint`; DTensors are gathered in process 0, one after the other.
        A step that has a checkpoint is not written again.
        """
        self.wait()
        path = checkpoint_path(self.run, step)
        if self._of_first(path.exists):
            return
        snapshot = self._snapshot(path, state, weights, about)
        if self.asynchronous:
            self._thread = Thread(target=self._write_behind, args=(snapshot, _current_gpu()))
            self._thread.start()
        else:
            self._write(snapshot)
            self._raise_failure()

    def _snapshot(
        self, path: Path, state: dict[str, Any], weights: dict[str, Tensor], about: About
    ) -> _Snapshot:
        tensors: dict[str, Tensor] = {}
        tree = state_folder.to_tree(state, tensors)
        own = state_folder.own_share(tensors)
        whole = {} if rank() else {k: v for k, v in weights.items() if not isinstance(v, DTensor)}
        if self.asynchronous:  # in one go: what state and weights share is copied once
            own, whole = self._stager.stage((own, whole))
        return _Snapshot(path, tree, own, whole | _gathered(weights), about)

    def check(self) -> None:
        """Raises what a write has failed of. Called every step; free unless something is being written."""
        if self._thread is None:
            return
        done = torch.tensor(not self._thread.is_alive(), dtype=torch.int32)
        if self._training is not None:  # a failure ends all processes at the same step
            dist.all_reduce(done, dist.ReduceOp.MIN, group=self._training)
        if done:
            self.wait()

    def wait(self) -> None:
        """Until nothing is being written."""
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        self._raise_failure()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Waits, raises nothing, and gives up the groups of processes."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._stager.close()
        for group in (self._training, self._writing):
            if group is not None:
                dist.destroy_process_group(group)
        self._training = self._writing = None

    def newest(self) -> Path | None:
        """The newest complete checkpoint."""
        return self._of_first(lambda: (saved_checkpoints(self.run) or [None])[-1])

    def resume(self, state: dict[str, Any]) -> int | None:
        """Loads the newest checkpoint into a state as `save` takes it; its step, or None where there is none.

        The number of processes and the sharding may differ from those that saved. Tensors take up their
        values in place; everything else in the dict is replaced by what was saved.
        Raises InputError, naming the file, for a damaged checkpoint and one of other tensors.
        """
        newest = self.newest()
        if newest is None:
            return None
        loaded = _agreed(self._training, lambda: state_folder.load_state(newest, state))
        state.clear()
        state.update(loaded)
        return step_of(newest)

    def record(self, step: int, figures: dict[str, float]) -> None:
        """The figures of an evaluated step; process 0's count.

        To be called before the save of a later step. A step that gets no checkpoint is never the best.
        Raises InputError where the figure that decides about the best is not among them.
        """
        if self.best is None:
            return
        name = self.best.removeprefix("-")
        _agreed(self._training, (lambda: self._take(name, step, figures)) if rank() == 0 else _nothing)

    def _take(self, name: str, step: int, figures: dict[str, float]) -> None:
        if name not in figures:
            raise InputError(f"loop.best={self.best}: no such figure; there are {', '.join(sorted(figures))}")
        if not math.isnan(figures[name]):
            self._figures[step] = figures[name]
        self._tidy()

    def _of_first(self, ask: Callable[[], Any]) -> Any:
        """The answer of process 0, which may see the folder earlier than others do."""
        answer = [_agreed(self._training, ask if rank() == 0 else _nothing)]
        if self._training is not None:
            dist.broadcast_object_list(answer, src=0, group=self._training)
        return answer[0]

    def _write_behind(self, snapshot: _Snapshot, gpu: int | None) -> None:
        """In a thread, which begins with the first GPU, another process' own."""
        if gpu is not None:
            torch.cuda.set_device(gpu)
        self._write(snapshot)

    def _write(self, snapshot: _Snapshot) -> None:
        try:
            self._write_whole(snapshot)
            self._alone(self._tidy)
        except BaseException as error:  # raised where training can see it
            self._failure = error

    def _write_whole(self, snapshot: _Snapshot) -> None:
        path = snapshot.path
        temporary = path.with_name(path.name + files.TEMPORARY)
        folder = temporary / state_folder.NAME
        try:
            self._alone(lambda: _prepare(temporary))
            metadata = state_folder.write_tensors(folder, snapshot.tensors, self._writing)
            self._alone(lambda: _finish(temporary, metadata, snapshot))
        except (OSError, InputError, CheckpointException) as error:
            if rank() == 0:
                shutil.rmtree(temporary, ignore_errors=True)
            found = f"{path}: could not be written ({state_folder.reason(error)})"
            raise InputError(f"{found}; {self._last_good()}") from error

    def _alone(self, work: Callable[[], None]) -> None:
        """Process 0 works, the others wait and learn whether it went well."""
        _agreed(self._writing, work if rank() == 0 else _nothing)

    def _last_good(self) -> str:
        saved = saved_checkpoints(self.run)
        return f"the last good checkpoint is {saved[-1]}" if saved else "there is no good checkpoint yet"

    def _tidy(self) -> None:
        """Settles which step is the best, and removes what is neither it nor among the last."""
        with self._folder:
            saved = saved_checkpoints(self.run)
            kept = saved[-self.keep_last :]
            if self.best is not None:
                best = self._settle_best({step_of(path) for path in saved})
                kept += [path for path in saved if best is not None and step_of(path) == best.step]
            for path in saved:
                if path not in kept:
                    _remove(path)

    def _settle_best(self, saved: set[int]) -> Best | None:
        best = self._read_best()
        if best is not None and (best.figure != self.best or best.step not in saved):
            best = None
        for step, value in sorted(self._figures.items()):
            if step in saved and (best is None or best.is_beaten_by(value)):
                best = Best(step, self.best, value)
                write_whole(self.run / BEST_NAME, json.dumps(vars(best)))
        newest = max(saved, default=-1)
        self._figures = {step: value for step, value in self._figures.items() if step > newest}
        return best

    def _read_best(self) -> Best | None:
        path = self.run / BEST_NAME
        if not path.exists():
            return None
        try:
            return Best(**json.loads(path.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}: does not say which step is the best ({error}); remove it") from error


def _prepare(temporary: Path) -> None:
    for left in temporary.parent.glob(f"step-*{files.TEMPORARY}"):  # by a run that was killed
        shutil.rmtree(left)
    # The run's folder is not made again: one whose folder vanishes, with its disk say, is told.
    temporary.parent.mkdir(exist_ok=True)
    temporary.mkdir()


def _finish(temporary: Path, metadata: Metadata, snapshot: _Snapshot) -> None:
    files.write_weights(temporary, snapshot.weights, snapshot.about)
    state_folder.finish_folder(temporary / state_folder.NAME, snapshot.tree, metadata)
    files.publish(temporary, snapshot.path)


def _current_gpu() -> int | None:
    return torch.cuda.current_device() if torch.cuda.is_initialized() else None


def _new_group() -> dist.ProcessGroup | None:
    return dist.new_group(backend="gloo", timeout=PATIENCE) if num_processes() > 1 else None


def _nothing() -> None:
    pass


def _agreed(group: dist.ProcessGroup | None, work: Callable[[], Any]) -> Any:
    """What this process' work returns, once all have done theirs.

    Where one cannot use its files, all raise InputError; where one meets a bug, it raises that.
    """
    result, error = None, None
    try:
        result = work()
    except Exception as caught:
        error = caught
    messages = [None if error is None else _message(error)]
    if group is not None:
        messages *= num_processes()
        dist.all_gather_object(messages, messages[0], group=group)
    if error is not None and not isinstance(error, OSError | InputError):
        raise error
    for message in messages:
        if message is not None:
            raise InputError(message) from error
    return result


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) if isinstance(error, InputError) else state_folder.reason(error)


def _gathered(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """DTensors whole, in process 0 alone. Each goes to the CPU before the next one is gathered."""
    whole = {}
    for name, weight in weights.items():
        if isinstance(weight, DTensor):
            gathered = weight.full_tensor().detach()
            if rank() == 0:
                whole[name] = gathered.to("cpu", copy=True)
    return whole


def _remove(path: Path) -> None:
    """At once for those that look for checkpoints."""
    temporary = path.with_name(path.name + files.TEMPORARY)
    path.rename(temporary)
    shutil.rmtree(temporary)
