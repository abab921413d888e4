"""Tasks in processes that can be killed: a file that hangs or crashes its decoder costs one task, no more.

    for path, found in run_killable(decode, paths, num_workers=8, timeout=60):
        if isinstance(found, Failure):
            print(f"{path}: {found.reason}")

Native decoders may abort, or hang with Python's lock in their hands, where neither a thread nor a signal
handler helps: only the process's end does. Nothing is shared among the workers. Each has a pipe of its own
and one task at a time, so that it may die at any moment, even while it sends a result, without a loss to its
neighbours; a common queue would be left locked, or with half a message in it. A thread of this process hands
out the tasks and takes in the results, so that the workers go on while the caller is busy.

Large results, such as a batch of clips, pass through memory that has no name (memfd): over the pipe they took
several times as long. What a worker leaves behind as it dies is gone with it.
"""

import atexit
import io
import multiprocessing
import os
import pickle
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from math import inf
from multiprocessing import reduction, resource_tracker
from multiprocessing.connection import Connection, Pipe, wait
from threading import Thread
from typing import Any, TypeVar

import torch

from coca_video.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

PRELOADED = [
    "coca_video.data.examples",
    "coca_video.data.loader",
]  # imported once, in the process that the workers are forked from
ORPHAN_SECONDS = 60  # beyond a task's time limit: when a worker whose parent is gone ends by itself
LARGE = 1_000_000  # bytes of a result's arrays: more pass through shared memory
# Signals that reach the whole process group, and are for the caller alone: Ctrl-C, and how schedulers say
# that time is up.
CALLERS_SIGNALS = {
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
}
_NOTHING = object()


@dataclass(frozen=True)
class Failure:
    """What a task has in place of a result."""

    kind: str  # "error": InputError; "timeout": killed at the time limit; "crash": its process died
    reason: str  # one line


def run_killable(
    function: Callable[..., Result],
    items: Iterable[Item],
    *,
    num_workers: int,
    timeout: float | None,
    context: object = _NOTHING,
    look_ahead: int = 4,
) -> Iterator[tuple[Item, Result | Failure]]:
    """Each item with `function(item)`, in the order of `items`; with a context, `function(context, item)`.

    Functions, contexts, items and results are pickled: the function stands in a module. The context is sent
    once a worker. `timeout`: seconds from when a worker begins with an item. `look_ahead`: items for each
    worker that may be under way or wait for the caller; only so many are taken from `items` in advance, and
    only so many results are held in memory.

    An InputError is a Failure; any other exception of the function is a bug, and ends the iteration with a
    RuntimeError with the traceback. When the iterator ends or is closed, the workers are killed.

    `num_workers=0` calls the function in this process: no time limit, and a crash is this process's own.
    """
    if num_workers < 0 or look_ahead < 1 or (timeout is not None and timeout <= 0):
        raise ValueError(
            "expected num_workers >= 0, look_ahead >= 1 and timeout > 0, "
            f"got num_workers={num_workers}, look_ahead={look_ahead}, timeout={timeout}"
        )
    job = function if context is _NOTHING else partial(function, context)
    if num_workers == 0:
        return ((item, _attempt(job, item)) for item in items)
    return _run_in_workers(job, items, num_workers, timeout, num_ahead=num_workers * look_ahead)


def _attempt(job: Callable[[Item], Result], item: Item) -> Result | Failure:
    try:
        return job(item)
    except InputError as error:
        return Failure("error", str(error))


def _run_in_workers(
    job: Callable[[Item], Result],
    items: Iterable[Item],
    num_workers: int,
    timeout: float | None,
    *,
    num_ahead: int,
) -> Iterator[tuple[Item, Result | Failure]]:
    pool = _Pool(pickle.dumps(job), num_workers=num_workers, timeout=timeout)
    waiting: deque[tuple[Item, Future]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(item)))
            if len(waiting) == num_ahead:
                yield _next_of(waiting)
        while waiting:
            yield _next_of(waiting)
    finally:
        pool.stop()


def _next_of(waiting: deque[tuple[Item, Future]]) -> tuple[Item, Any]:
    item, future = waiting.popleft()
    return item, future.result()


@dataclass
class _Task:
    item: bytes  # pickled
    future: Future = field(default_factory=Future)


class _Worker:
    """A process, this end of its pipe, and the task it has been given."""

    def __init__(self, job: bytes, timeout: float | None) -> None:
        processes = multiprocessing.get_context(_start_method())
        self.pipe, far_end = processes.Pipe()
        self.process = processes.Process(target=_serve, args=(far_end, job, timeout), daemon=True)
        self.process.start()
        far_end.close()  # the worker's alone: when it dies, this end says so
        self.task: _Task | None = None
        self.is_ready = False  # it has imported and unpickled what it needs
        self.is_busy = False  # it has begun with its task
        self.deadline = inf

    def take(self, task: _Task) -> None:
        self.task = task
        if self.is_ready:
            self._send()

    def greet(self) -> None:
        self.is_ready = True
        if self.task is not None:
            self._send()

    def _send(self) -> None:
        try:
            self.pipe.send_bytes(self.task.item)
        except OSError:  # it has just died, as will be seen when it is heard next
            pass

    def begin(self, timeout: float | None) -> None:
        self.is_busy = True
        self.deadline = inf if timeout is None else time.monotonic() + timeout

    def hand_over(self) -> Future:
        """The task's future; the worker is free again."""
        future = self.task.future
        self.task, self.is_busy, self.deadline = None, False, inf
        return future

    @property
    def is_overdue(self) -> bool:
        """Past its time limit, and not with its result on the way."""
        return time.monotonic() >= self.deadline and not self.pipe.poll()

    def kill(self) -> None:
        self.process.kill()
        self.process.join(timeout=10)  # more only where a dead file system keeps it from dying
        self.pipe.close()


def _start_method() -> str:
    """Forked from a process without threads: this one has torch's, and a spawned one imports for seconds."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        multiprocessing.set_forkserver_preload(PRELOADED)
        return "forkserver"
    return "spawn"


class _Pool:
    """The thread that hands out tasks. `submit` and `stop` are the caller's; the rest runs in the thread."""

    def __init__(self, job: bytes, *, num_workers: int, timeout: float | None) -> None:
        self._job, self._num_workers, self._timeout = job, num_workers, timeout
        self._tasks: deque[_Task] = deque()  # that no worker has
        self._workers: list[_Worker] = []
        self._alarm, self._bell = Pipe(duplex=False)
        self._is_stopped = False
        self._thread = Thread(target=self._run, name="run_killable", daemon=True)
        self._thread.start()
        # The end of this program would ask the workers to go, who do not hear it, and wait for them.
        atexit.register(self.stop)

    def submit(self, item: object) -> Future:
        if not self._thread.is_alive():
            raise RuntimeError("the thread that hands out tasks has ended")
        task = _Task(pickle.dumps(item))
        self._tasks.append(task)
        self._bell.send_bytes(b"!")
        return task.future

    def stop(self) -> None:
        if self._is_stopped:
            return
        atexit.unregister(self.stop)
        self._is_stopped = True
        self._bell.send_bytes(b"!")
        self._thread.join()
        self._bell.close()
        self._alarm.close()

    def _run(self) -> None:
        _keep_interrupts_from_children()
        try:
            while not self._is_stopped:
                self._hand_out()
                self._listen()
        except BaseException as error:  # a bug here is the caller's to see, who else would wait for ever
            for task in [*self._tasks, *(worker.task for worker in self._workers if worker.task)]:
                task.future.set_exception(error)
        finally:
            for worker in self._workers:
                worker.kill()

    def _hand_out(self) -> None:
        while self._tasks:
            try:
                worker = self._free_worker()
            except OSError as error:  # no more processes or open files are allowed
                self._tasks.popleft().future.set_exception(error)
                continue
            if worker is None:
                return
            worker.take(self._tasks.popleft())

    def _free_worker(self) -> _Worker | None:
        free = next((worker for worker in self._workers if worker.task is None), None)
        if free is None and len(self._workers) < self._num_workers:
            free = _Worker(self._job, self._timeout)
            self._workers.append(free)
        return free

    def _listen(self) -> None:
        first_deadline = min((worker.deadline for worker in self._workers), default=inf)
        seconds = None if first_deadline == inf else max(0.0, first_deadline - time.monotonic())
        # A pipe alone may stay open in a process that was forked from here at the wrong moment.
        signs = [sign for worker in self._workers for sign in (worker.pipe, worker.process.sentinel)]
        heard = wait([self._alarm, *signs], seconds)
        if self._alarm in heard:
            self._alarm.recv_bytes()
        for worker in list(self._workers):
            if worker.pipe in heard or worker.process.sentinel in heard:
                self._hear(worker)
            elif worker.is_overdue:
                self._remove(worker)
                reason = f"took longer than {self._timeout:g} seconds"
                worker.task.future.set_result(Failure("timeout", reason))

    def _hear(self, worker: _Worker) -> None:
        try:
            if not worker.pipe.poll():
                raise EOFError
            message = worker.pipe.recv_bytes()
            arrays = _received(worker.pipe) if message.startswith(_SHARED) else None
        except (EOFError, OSError):  # also in the middle of a message
            self._bury(worker)
            return
        if message == _READY:
            worker.greet()
        elif message == _BEGUN:
            worker.begin(self._timeout)
        else:
            _settle(worker.hand_over(), message, arrays)

    def _bury(self, worker: _Worker) -> None:
        """A worker has died: its task has failed if it had begun, and otherwise is another's."""
        self._remove(worker)
        if worker.is_busy:
            worker.task.future.set_result(Failure("crash", f"its process {_end_of(worker)}"))
        elif worker.is_ready and worker.task is not None:
            self._tasks.appendleft(worker.task)
        elif worker.task is not None:
            hint = "see its traceback above; a script that starts workers needs `if __name__ == '__main__':`"
            reason = f"a worker process {_end_of(worker)} before it could begin: {hint}"
            worker.task.future.set_exception(RuntimeError(reason))

    def _remove(self, worker: _Worker) -> None:
        worker.kill()
        self._workers.remove(worker)


def _keep_interrupts_from_children() -> None:
    """What reaches the whole process group is for the caller alone, who then stops the workers.

    A mask is inherited from this thread by every process that it starts, and so is there from their first
    moment; a handler would come after their imports, which would show tracebacks.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, CALLERS_SIGNALS)
        resource_tracker.ensure_running()  # starting later, it would undo the mask, and so does it now
        signal.pthread_sigmask(signal.SIG_BLOCK, CALLERS_SIGNALS)


def _end_of(worker: _Worker) -> str:
    code = worker.process.exitcode
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"died of {signal.Signals(-code).name}"
    except ValueError:  # real-time signals have no names
        return f"died of signal {-code}"


def _settle(future: Future, message: bytes, arrays: memoryview | None) -> None:
    """Unpickled here: whatever is wrong with a result concerns its task alone."""
    try:
        result = pickle.loads(message) if arrays is None else _with_arrays(message, arrays)
    except Exception as error:
        future.set_exception(error)
        return
    if isinstance(result, _Bug):
        future.set_exception(RuntimeError(f"in a worker process:\n{result.traceback}"))
    else:
        future.set_result(result)


# What a worker says besides results, which are pickles and do not begin so.
_READY, _BEGUN = b"ready", b"begun"
_SHARED = b"shared"  # before the pickle of a result whose arrays lie in shared memory


@dataclass
class _Bug:
    traceback: str


def _serve(pipe: Connection, job: bytes, timeout: float | None) -> None:
    """A worker's life: one item after another, until the other end of the pipe is gone."""
    for number in CALLERS_SIGNALS:  # where there is no mask
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    attempt = partial(_attempt, pickle.loads(job))
    try:
        pipe.send_bytes(_READY)
        while True:
            item = pipe.recv_bytes()
            pipe.send_bytes(_BEGUN)
            _end_after(0 if timeout is None else timeout + ORPHAN_SECONDS)
            answer = _answer(attempt, item)
            _end_after(0)  # it may wait for its next task as long as the caller likes
            _send_result(pipe, *answer)
    except (EOFError, ConnectionError):  # what else goes wrong, such as no memory to send, is to be seen
        sys.exit()


def _end_after(seconds: float) -> None:
    """The kernel ends a task that hangs and whose parent was killed: nobody else would. 0: never."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _answer(attempt: Callable[[Item], Result | Failure], item: bytes) -> tuple[bytes, list[memoryview]]:
    try:
        return _pickled(attempt(pickle.loads(item)))
    except Exception:
        return pickle.dumps(_Bug(traceback.format_exc())), []


def _pickled(result: object) -> tuple[bytes, list[memoryview]]:
    """A result as bytes; and the contents of its large arrays, which the bytes are then without."""
    content, arrays = io.BytesIO(), []

    def stays_inside(array: pickle.PickleBuffer) -> bool:
        view = array.raw()
        if not hasattr(os, "memfd_create") or view.nbytes < LARGE:
            return True
        arrays.append(view)
        return False

    pickler = _Pickler(content, protocol=pickle.HIGHEST_PROTOCOL, buffer_callback=stays_inside)
    pickler.dump(result)
    return content.getvalue(), arrays


def _send_result(pipe: Connection, content: bytes, arrays: list[memoryview]) -> None:
    if not arrays:
        pipe.send_bytes(content)
        return
    memory = os.memfd_create("result")
    try:
        with open(memory, "wb", closefd=False, buffering=0) as file:
            for array in arrays:
                _write_array(file, array)
                file.write(bytes(_padding(array.nbytes)))
        pipe.send_bytes(_SHARED + pickle.dumps(([array.nbytes for array in arrays], content)))
        reduction.send_handle(pipe, memory, None)
    finally:
        os.close(memory)


def _write_array(file: io.RawIOBase, content: memoryview) -> None:
    """A write stops at 2 GB."""
    while content.nbytes:
        content = content[file.write(content) :]


def _padding(size: int) -> int:
    """Bytes behind an array, so that the next one begins where any kind of number may."""
    return -size % 64


def _received(pipe: Connection) -> memoryview:
    """The memory that a worker has sent. It is returned to the system with the last array in it."""
    memory = reduction.recv_handle(pipe)
    try:  # Python's own mmap would keep a file open
        size = os.fstat(memory).st_size
        content = torch.from_file(f"/proc/self/fd/{memory}", shared=True, size=size, dtype=torch.uint8)
        return memoryview(content.numpy())
    finally:
        os.close(memory)


def _with_arrays(message: bytes, memory: memoryview) -> object:
    sizes, content = pickle.loads(memoryview(message)[len(_SHARED) :])
    whole, arrays = memory, []
    for size in sizes:
        arrays.append(whole[:size])
        whole = whole[size + _padding(size) :]
    return pickle.loads(content, buffers=arrays)


class _Pickler(pickle.Pickler):
    """Tensors as numpy's arrays: faster than torch's own way, and a view does not bring what it is a view of.

    Torch's own shared memory takes an open file a tensor.
    """

    def reducer_override(self, value: object) -> Any:
        if type(value) is torch.Tensor and not value.requires_grad:
            with suppress(TypeError, RuntimeError):  # another device, or what numpy lacks
                return torch.from_numpy, (value.contiguous().numpy(),)
        return NotImplemented
