import os
import re
import signal
import socket
from pathlib import Path

import pytest

from coca_video.errors import InputError
from coca_video.training.run_lock import locked


def hold_until_killed(folder: Path) -> int:
    """The number of a process that holds the lock."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with locked(folder):
            os.write(tell, b"!")
            signal.pause()
    os.read(told, 1)
    return child


def test_one_run_at_a_time(tmp_path):
    with locked(tmp_path / "run"):
        who = f"process {os.getpid()} on {socket.gethostname()}"
        expected = f"{tmp_path / 'run'}: is in use by another run ({who}); wait for its end, "
        with pytest.raises(InputError, match="^" + re.escape(expected)):
            with locked(tmp_path / "run"):
                pass
        with locked(tmp_path / "other"):
            pass
    with locked(tmp_path / "run"):
        pass


def test_a_killed_run_holds_no_lock(tmp_path):
    """And the next one has its own name in the file."""
    holder = hold_until_killed(tmp_path)
    with pytest.raises(InputError, match=f"process {holder} on "):
        with locked(tmp_path):
            pass
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    with locked(tmp_path):
        with pytest.raises(InputError, match=f"process {os.getpid()} on "):
            with locked(tmp_path):
                pass


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        with locked(tmp_path / "file"):
            pass
