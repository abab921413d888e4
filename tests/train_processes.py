"""The command that trains, in one of several processes: here, where a spawned process can import it."""

import contextlib
import io
import json
import os
import socket
from pathlib import Path

import torch
from datasets import call
from processes import start

from coca_video.cli import exit_code_of
from coca_video.commands.train import main


def train_in_processes(folder: Path, *commands: list[str], num_processes: int = 2) -> list[list[dict]]:
    """Of each command, and of each process, its exit code and what it printed to stderr."""
    folder.mkdir()
    ports = [_free_port() for _ in commands]
    start(_train, folder, ports, commands, num_processes, num_processes=num_processes)
    found = [json.loads((folder / str(rank)).read_text()) for rank in range(num_processes)]
    return [list(of_command) for of_command in zip(*found)]


def _train(rank: int, folder: Path, ports: list[int], commands: tuple, num_processes: int) -> None:
    """As torchrun would have it."""
    torch.set_num_threads(1)
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_processes, "MASTER_ADDR": "localhost"}
    os.environ |= {name: str(value) for name, value in own.items()}
    os.environ["COCA_VIDEO_CACHE"] = str(folder / "cache")
    found = []
    for port, command in zip(ports, commands):
        os.environ["MASTER_PORT"] = str(port)
        with contextlib.redirect_stderr(io.StringIO()) as printed:
            code = exit_code_of(lambda: call(main, *command))
        found.append({"code": code, "err": printed.getvalue()})
    (folder / str(rank)).write_text(json.dumps(found))


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]
