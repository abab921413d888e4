"""One run at a time trains in a folder: two would overwrite each other's log and checkpoints."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from coca_video.errors import InputError
from coca_video.ops.distributed import by_first

try:
    import fcntl
except ImportError:  # Windows: a run goes without a lock
    fcntl = None

NAME = ".lock"
# What a file system without locks answers.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, made where it is missing, for as long as the context lasts. All processes
    call; the first one holds it.

    The kernel gives it up when its process ends, by SIGKILL too: a dead run keeps no other from going on. The
    file stays, and means nothing without the lock.
    Nodes see each other's locks on Lustre mounted with `flock` and on NFS, but for mounts with `nolock` or
    `local_lock`. A node that breaks down holds its locks on NFS until the server has missed it for a while
    (NFSv4: its lease, about 90 seconds; NFSv3: until the node starts again). Where a file system has no locks
    at all, the run goes without.
    Raises InputError, in all processes, where another run holds it.
    """
    with ExitStack() as held:
        by_first(lambda: _take(folder, held))
        yield


def _take(folder: Path, held: ExitStack) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        return
    file = held.enter_context(open(folder / NAME, "a+", encoding="utf-8"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        hint = "wait for its end, stop it, or set output= to another folder"
        raise InputError(f"{folder}: is in use by another run ({_holder(file)}); {hint}") from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()


def _holder(file: TextIO) -> str:
    """As the other run has said, which may have taken the lock this moment."""
    file.seek(0)
    return file.read().strip() or "it has just begun"
