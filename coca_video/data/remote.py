"""Files named by patterns and addresses; the only module that imports fsspec.

An address is written `scheme://...`, with any scheme that fsspec knows: s3, gs, https and more. Where a
scheme needs a package that is not installed, the message names it.
"""

import glob
import hashlib
import os
import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from coca_video.errors import InputError

Result = TypeVar("Result")

PAUSES = (1.0, 4.0)  # seconds before the second and the third try
MARKS = (  # of a file's version, as the file systems name them
    "ETag",
    "etag",
    "Content-MD5",
    "Digest",
    "Last-Modified",
    "LastModified",
    "last_modified",
    "generation",
    "mtime",
    "updated",
    "created",
)
ABANDONED = 24 * 3600  # seconds after which an unfinished copy is nobody's
RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")


@dataclass(frozen=True)
class Facts:
    """What can be known of a file without reading it."""

    size: int | None  # bytes; some servers do not say
    version: str  # another one after the file has changed, as far as its place tells


def is_remote(path: str) -> bool:
    return "://" in path


def expand(pattern: str | Path) -> list[str]:
    """The files that a pattern names, sorted, each once: absolute paths, or addresses.

    A pattern is a folder (all its .tar files), a file, a glob, braces such as `{000000..000123}` and
    `{train,val}` before any of these, or an address of these. Raises InputError where one names no file.
    """
    pattern = str(pattern)
    parts = [pattern] if os.path.exists(pattern) else expand_braces(pattern)
    found: set[str] = set()
    for part in parts:
        looked_for, files = _files_of_address(part) if is_remote(part) else _files_of_path(part)
        if not files:
            raise InputError(f"{pattern}: no shards found; looked for {looked_for}")
        found.update(files)
    return sorted(found)


def expand_braces(pattern: str) -> list[str]:
    """As a shell does: `a{08..10}{x,y}` -> a08x a08y a09x ...; braces without `..` or `,` stay."""
    for braces in re.finditer(r"\{([^{}]*)\}", pattern):
        choices = _choices(braces[1])
        if choices is not None:
            before, behind = pattern[: braces.start()], pattern[braces.end() :]
            return [each for choice in choices for each in expand_braces(before + choice + behind)]
    return [pattern]


def facts(path: str) -> Facts:
    """Raises InputError for a file that does not exist or cannot be asked about."""
    if not is_remote(path):
        try:
            state = os.stat(path)
        except OSError as error:
            raise InputError(f"{path}: cannot read this shard ({error.strerror})") from error
        return Facts(state.st_size, f"{state.st_size} {state.st_mtime_ns}")
    info = _trying(path, lambda files, inside: files.info(inside))
    marks = [str(info[name]) for name in MARKS if info.get(name) is not None]
    return Facts(info.get("size"), " ".join([str(info.get("size")), *marks]))


def read_text(address: str) -> str | None:
    """A small file's text; None where there is none, or it cannot be read: for what one can do without."""
    try:
        files, inside = _file_system(address)
        return files.cat_file(inside).decode()
    except InputError:
        raise
    except Exception:  # each file system has errors of its own
        return None


def local_copy(
    address: str, folder: Path, max_bytes: int, *, version: str = "", keep: Collection[Path] = ()
) -> Path:
    """A copy of a remote file on this machine, downloaded whole unless it is there.

    Several processes may want the same one: one of them downloads it. Where the copies in `folder` take more
    than `max_bytes`, those used least recently are removed, but not this one nor those in `keep`.
    version: a copy is of one version of the file. Raises InputError, naming the address, for a file that
    cannot be downloaded in three tries.
    """
    name = hashlib.sha256(f"{address} {version}".encode()).hexdigest()[:32]
    copy = folder / f"{name}.copy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _one_process(folder / f"{name[:2]}.lock") as is_alone:
            if not _touch(copy):
                _download(address, copy, is_alone=is_alone)
        _remove_oldest(folder, max_bytes, keep={copy, *keep})
    except OSError as error:
        raise InputError(
            f"{folder}: cannot hold copies of remote shards ({error.strerror or error})"
        ) from error
    return copy


def _files_of_path(pattern: str) -> tuple[str, list[str]]:
    """What was looked for, and what was found."""
    pattern = os.path.abspath(pattern)
    if os.path.exists(pattern):
        is_folder = os.path.isdir(pattern)
        pattern = os.path.join(glob.escape(pattern), "*.tar") if is_folder else glob.escape(pattern)
    return pattern, glob.glob(pattern)


def _files_of_address(address: str) -> tuple[str, list[str]]:
    """A last part without a dot is a folder; a file's existence shows when it is read."""
    is_glob = "*" in address or "[" in address  # a question mark belongs to a web address
    if not is_glob and "." in urlsplit(address).path.rpartition("/")[2]:
        return address, [address]
    address = address if is_glob else f"{address.rstrip('/')}/*.tar"
    found = _trying(address, lambda files, inside: [files.unstrip_protocol(f) for f in files.glob(inside)])
    return address, found


def _choices(inside: str) -> list[str] | None:
    """What braces stand for; None: for themselves."""
    if numbers := RANGE.fullmatch(inside):
        first, last = numbers[1], numbers[2]
        is_padded = any(len(end.lstrip("-")) > 1 and end.lstrip("-")[0] == "0" for end in (first, last))
        width = max(len(first), len(last)) if is_padded else 0
        low, high = sorted((int(first), int(last)))
        return [f"{number:0{width}d}" for number in range(low, high + 1)]
    return inside.split(",") if "," in inside else None


def _file_system(address: str) -> tuple[AbstractFileSystem, str]:
    try:
        return url_to_fs(address)
    except ImportError as error:
        raise InputError(f"{address}: needs a package that is not installed: {_line(error)}") from error
    except ValueError as error:
        raise InputError(f"{address}: not an address that fsspec understands ({_line(error)})") from error
    except Exception as error:  # each file system has errors of its own
        raise InputError(f"{address}: its file system cannot be used ({_line(error)})") from error


def _trying(address: str, action: Callable[[AbstractFileSystem, str], Result]) -> Result:
    """What an action on the address' file system gives, in up to three tries."""
    for pause in (*PAUSES, None):
        files, inside = _file_system(address)
        try:
            return action(files, inside)
        except Exception as error:  # each file system has errors of its own
            if final := _final_reason(error):
                raise InputError(f"{address}: {final}") from error
            if pause is None:
                tries = len(PAUSES) + 1
                raise InputError(
                    f"{address}: cannot be read in {tries} tries ({_line(error.__cause__ or error)})"
                ) from error
            time.sleep(pause)


def _final_reason(error: Exception) -> str | None:
    """In place of an error that waiting does not change."""
    if isinstance(error, PermissionError):
        return "no permission to read it"
    # fsspec calls every failure of a web server a missing file.
    cause = error.__cause__
    is_missing = cause is None or isinstance(cause, FileNotFoundError) or getattr(cause, "status", 0) == 404
    return "no such file" if isinstance(error, FileNotFoundError) and is_missing else None


def _download(address: str, copy: Path, *, is_alone: bool) -> None:
    if is_alone:  # what was begun by a process that was killed meanwhile
        for abandoned in copy.parent.glob(f"{copy.name}.*.part"):
            abandoned.unlink(missing_ok=True)
    partial = copy.with_name(f"{copy.name}.{uuid4().hex}.part")

    def fetch(files: AbstractFileSystem, inside: str) -> None:
        files.get_file(inside, str(partial))
        expected, found = files.info(inside).get("size"), partial.stat().st_size
        if expected not in (None, found):
            raise EOFError(f"{found} of {expected} bytes came")

    try:
        _trying(address, fetch)
        os.replace(partial, copy)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _one_process(lock: Path) -> Iterator[bool]:
    """One process at a time within, where the folder's file system can lock (True); else all at once."""
    with open(lock, "w") as file:
        is_alone = False
        with suppress(ImportError, OSError):
            import fcntl  # not on Windows

            fcntl.flock(file, fcntl.LOCK_EX)
            is_alone = True
        yield is_alone


def _touch(copy: Path) -> bool:
    """Notes that a copy is used now; False where there is none."""
    try:
        os.utime(copy)
    except FileNotFoundError:
        return False
    return True


def _remove_oldest(folder: Path, max_bytes: int, *, keep: Collection[Path]) -> None:
    states = {}
    for file in folder.iterdir():
        with suppress(FileNotFoundError):  # another process is faster
            states[file] = file.stat()
    unfinished = [file for file in states if file.suffix == ".part"]
    old = [file for file in unfinished if states[file].st_mtime < time.time() - ABANDONED]
    copies = sorted((file for file in states if file.suffix == ".copy"), key=lambda f: states[f].st_mtime_ns)
    total = sum(states[copy].st_size for copy in copies)
    for copy in copies:
        if total > max_bytes and copy not in keep:
            old.append(copy)
            total -= states[copy].st_size
    for file in old:
        file.unlink(missing_ok=True)


def _line(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(str(error).split()) or type(error).__name__
