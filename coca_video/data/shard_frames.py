"""The frames of a shard's sample: of a picture one, of a video those that are asked for."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from coca_video.data.pictures import read_picture
from coca_video.data.shard_records import ShardRecord
from coca_video.data.video import VideoReader
from coca_video.errors import InputError


def shard_frames(
    record: ShardRecord, choose: Callable[[int, float], list[int]], *, shorter_side: int | None = None
) -> Tensor:
    """The frames that `choose` takes of a video's number of them and its seconds, or the picture: uint8
    't c h w'.

    shorter_side: see VideoReader; pictures keep their size. Raises InputError, naming shard and key.
    """
    if not record.is_video:
        return read_picture(record.encoded, name=record.name)
    with _as_file(record.encoded, suffix=record.suffix) as path:
        try:
            reader = VideoReader(path, shorter_side=shorter_side)
            return reader.frames(choose(len(reader), len(reader) / reader.fps))
        except InputError as error:
            raise InputError(str(error).replace(str(path), record.name)) from error


@contextmanager
def _as_file(content: bytes, *, suffix: str) -> Iterator[Path]:
    """For decoders that want a file: in memory, where it ends with the process, if the system can do that."""
    if hasattr(os, "memfd_create"):  # Linux
        with open(os.memfd_create("video"), "wb", buffering=0) as file:
            _write_all(file.fileno(), content)
            yield Path(f"/proc/self/fd/{file.fileno()}")
        return
    with tempfile.TemporaryDirectory(prefix="coca_video-") as folder:
        path = Path(folder, f"video.{suffix}")
        path.write_bytes(content)
        yield path


def _write_all(descriptor: int, content: bytes) -> None:
    """One call writes 2 GiB at most."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
