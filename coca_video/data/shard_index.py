"""Where each sample of a tar shard lies, so that any of them can be read without those before it.

An index is made from the headers of the tar file alone, 512 bytes a member. Consecutive members of equal key
are a sample; a key is a member's path up to the first dot of its last part, the rest is its suffix, in lower
case (the WebDataset format). Headers may be ustar, GNU (long names, large sizes) or pax.
"""

import hashlib
import io
import json
import os
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np

from coca_video.errors import InputError
from coca_video.files import write_whole_bytes

Kept = TypeVar("Kept")

BLOCK = 512  # bytes; all in a tar file begins at a multiple of it
ZEROS = bytes(BLOCK)
FORMAT = 1  # of index files; another number makes them anew
META = re.compile(rb"__[^/]*__($|/)")  # members that describe the shard, not a sample
# Types of members.
FILES = (b"0", b"\0", b"7")
WITHOUT_CONTENT = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders: their size means nothing
LONG_NAME, LONG_LINK, PAX, PAX_FOR_ALL = b"L", b"K", b"x", b"g"


class Extent(NamedTuple):
    """Of a member's content within the shard, bytes."""

    offset: int
    size: int


class Member(NamedTuple):
    name: bytes
    offset: int
    size: int


class Outline(NamedTuple):
    """What is known of a shard at once, without its index."""

    size: int  # samples
    problem: str | None  # see ShardIndex


@dataclass
class ShardIndex:
    """Where the samples of one shard lie, in arrays: some 40 bytes a sample of three members, and its key."""

    keys: np.ndarray  # uint8: all keys in UTF-8, one behind the other
    key_ends: np.ndarray  # int 'n': where the key of each sample ends
    member_ends: np.ndarray  # int 'n': how many members there are up to the sample's end
    suffix_numbers: np.ndarray  # int 'm', into `suffixes`
    offsets: np.ndarray  # int 'm', bytes
    sizes: np.ndarray  # int 'm', bytes
    suffixes: list[str]
    problem: str | None = None  # why the shard may hold fewer samples than it should

    def __len__(self) -> int:
        return len(self.key_ends)

    def key(self, sample: int) -> str:
        return self.keys[slice(*_bounds(self.key_ends, sample))].tobytes().decode(errors="replace")

    def members(self, sample: int) -> dict[str, Extent]:
        """Suffix -> where that member's content lies."""
        return {
            self.suffixes[self.suffix_numbers[member]]: Extent(
                int(self.offsets[member]), int(self.sizes[member])
            )
            for member in range(*_bounds(self.member_ends, sample))
        }

    def to_bytes(self) -> bytes:
        buffer = io.BytesIO()
        about = json.dumps({"suffixes": self.suffixes, "problem": self.problem}).encode()
        for values in (np.frombuffer(about, np.uint8), *self._arrays()):
            np.save(buffer, values, allow_pickle=False)
        return _digest(buffer.getvalue()) + buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "ShardIndex | None":
        """What `to_bytes` gave; None for anything else."""
        content = _with_digest(content)
        if content is None:
            return None
        buffer = io.BytesIO(content)
        about, *arrays = [np.load(buffer, allow_pickle=False) for _ in range(7)]
        return cls(*arrays, **json.loads(about.tobytes()))

    def _arrays(self) -> list[np.ndarray]:
        return [
            self.keys,
            self.key_ends,
            self.member_ends,
            self.suffix_numbers,
            self.offsets,
            self.sizes,
        ]


def index_tar(path: Path) -> ShardIndex:
    """As `index_file`; raises InputError for a file that cannot be opened."""
    try:
        with open(path, "rb") as file:
            return index_file(file, name=str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot read this shard ({error.strerror or error})") from error


def index_file(file: BinaryIO, *, name: str) -> ShardIndex:
    """The index of a tar file, from its headers.

    Of a file that is cut short or damaged the samples before that place are kept, and `problem` says where it
    is. name: of the shard in messages. Raises InputError for a file that is no tar or cannot be read.
    """
    collected = _Collected()
    try:
        for member in _members(file, size=os.fstat(file.fileno()).st_size):
            collected.add(member)
    except OSError as error:
        raise InputError(f"{name}: cannot read this shard ({error.strerror or error})") from error
    except _Ends as end:
        if end.position == 0 and end.is_damage:
            reason = f"it begins with {end.found!r}"
            raise InputError(f"{name}: not a readable tar file: {reason}") from end
        return collected.index(end)
    return collected.index()


def read_idx(text: str, *, size: int | None) -> ShardIndex | None:
    """The index in a file that NVIDIA DALI's wds2idx (v1.2) wrote beside a shard of `size` bytes.

        v1.2 2
        jpg 1536 8422 000.jpg txt 10752 12 000.txt
        jpg 12288 9120 001.jpg txt 22016 30 001.txt

    None for a file of another format, or for one that cannot be of this shard.
    """
    head, *lines = text.rstrip("\n").split("\n")
    if head != f"v1.2 {len(lines)}":
        return None
    collected = _Collected()
    for line in lines:
        words = line.split(" ")
        if len(words) % 4:
            return None  # a name with blanks
        for offset, length, name in zip(words[1::4], words[2::4], words[3::4]):
            if not (offset.isdecimal() and length.isdecimal()):
                return None
            if size is not None and int(offset) + int(length) > size:
                return None
            collected.add(Member(name.encode(), int(offset), int(length)))
    return collected.index()


def format_idx(index: ShardIndex) -> str:
    """What `read_idx` reads."""
    lines = [f"v1.2 {len(index)}"]
    for sample in range(len(index)):
        key = index.key(sample)
        members = index.members(sample).items()
        lines.append(" ".join(f"{suffix} {at.offset} {at.size} {key}.{suffix}" for suffix, at in members))
    return "".join(f"{line}\n" for line in lines)


def cached_index(shard: str, *, version: str, make: Callable[[], ShardIndex], folder: Path) -> ShardIndex:
    """The index of a shard in this version, from `folder` or made and kept there.

    Several processes may ask for the same one. A folder that cannot be written to costs only time.
    """
    file = folder / f"{_name_of(f'{FORMAT} {shard} {version}')}.index"
    return _kept(file, make, to_bytes=ShardIndex.to_bytes, from_bytes=ShardIndex.from_bytes)


def cached_outlines(
    versions: Sequence[tuple[str, str]], *, make: Callable[[], list[Outline]], folder: Path
) -> list[Outline]:
    """As `cached_index`, those of many shards in one file. versions: each shard with its version."""
    if len(versions) == 1:  # its index is as quick to read
        return make()
    file = folder / f"{_name_of(json.dumps([FORMAT, *versions]))}.outlines"
    return _kept(file, make, to_bytes=_outlines_to_bytes, from_bytes=_outlines_from_bytes)


def _kept(
    file: Path,
    make: Callable[[], Kept],
    *,
    to_bytes: Callable[[Kept], bytes],
    from_bytes: Callable[[bytes], Kept | None],
) -> Kept:
    found = None
    with suppress(OSError):
        found = from_bytes(file.read_bytes())
    if found is None:
        found = make()
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole_bytes(file, to_bytes(found))
    return found


def _name_of(what: str) -> str:
    """Paths may have bytes that are no UTF-8."""
    return hashlib.sha256(what.encode(errors="surrogateescape")).hexdigest()[:32]


def _outlines_to_bytes(outlines: list[Outline]) -> bytes:
    content = json.dumps(outlines).encode()
    return _digest(content) + content


def _outlines_from_bytes(content: bytes) -> list[Outline] | None:
    content = _with_digest(content)
    return None if content is None else [Outline(*each) for each in json.loads(content)]


class _Ends(Exception):
    """A tar file that does not go on as it should at `position`."""

    def __init__(self, position: int, *, found: bytes | None = None, member: bytes | None = None):
        super().__init__()
        self.position = position  # bytes
        self.found = found  # the beginning of what is no header; None: the file is cut short
        self.is_damage = found is not None
        self.member = member  # the name of the one that is cut, where that is known

    def __str__(self) -> str:
        return "damaged" if self.is_damage else "cut short"


def _members(file: BinaryIO, *, size: int) -> Iterator[Member]:
    """Every regular file in a tar file of `size` bytes; raises _Ends for one without a proper end."""
    position, given = 0, {}  # given: what headers before a member's own say of it
    while True:
        file.seek(position)
        header = file.read(BLOCK)
        if header == ZEROS:
            return
        if len(header) < BLOCK and (position or not header):
            raise _Ends(size)
        length = _content_size(header)
        if length is None:
            raise _Ends(position, found=header[:16])
        kind, start = header[156:157], position + BLOCK
        length = 0 if kind in WITHOUT_CONTENT else given.get("size", length)
        name = given.get("path") or _name(header)
        if start + length > size:
            raise _Ends(size, member=name if kind in FILES else None)
        if kind == LONG_NAME:
            given["path"] = file.read(length).rstrip(b"\0")
        elif kind == PAX:
            given |= _pax(file.read(length))
        elif kind not in (LONG_LINK, PAX_FOR_ALL):
            given = {}
            if kind in FILES:
                yield Member(name, start, length)
        position = start + -(-length // BLOCK) * BLOCK


def _content_size(header: bytes) -> int | None:
    """Bytes of content behind a header; None for what is no header."""
    try:
        checksum = int(header[148:156].strip(b" \0"), 8)
        if checksum != sum(header) - sum(header[148:156]) + 8 * ord(" "):
            return None
        if header[124] & 0x80:  # GNU: more than eleven octal digits can say
            return int.from_bytes(header[125:136], "big")
        length = int(header[124:136].strip(b" \0") or b"0", 8)
        return length if length >= 0 else None  # with a negative one the walk would never end
    except ValueError:
        return None


def _name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    folder = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return folder + b"/" + name if folder else name


def _pax(content: bytes) -> dict[str, bytes | int]:
    """Path and size of lines such as b"30 path=a/long/name.png"; each begins with its length."""
    given: dict[str, bytes | int] = {}
    while content and (length := int(re.match(rb"\d*", content)[0] or 0)):
        line, content = content[: length - 1], content[length:]
        key, _, value = line.partition(b" ")[2].partition(b"=")
        if key == b"path":
            given["path"] = value
        elif key == b"size" and value.isdigit():
            given["size"] = int(value)
    return given


class _Collected:
    """Members on their way into an index."""

    def __init__(self) -> None:
        self.keys, self.key_ends, self.member_ends = bytearray(), array("Q"), array("Q")
        self.suffix_numbers, self.offsets, self.sizes = array("Q"), array("Q"), array("Q")
        self.suffixes: dict[bytes, int] = {}
        self._key: bytes | None = None
        self._seen: set[bytes] = set()

    def add(self, member: Member) -> None:
        key, suffix = _key_and_suffix(member.name)
        if not key:
            return
        if key != self._key or suffix in self._seen:
            self._begin(key)
        self._seen.add(suffix)
        self.suffix_numbers.append(self.suffixes.setdefault(suffix, len(self.suffixes)))
        self.offsets.append(member.offset)
        self.sizes.append(member.size)
        self.member_ends[-1] += 1

    def index(self, end: _Ends | None = None) -> ShardIndex:
        """end: where the shard ends too early; its last sample is kept only if it is surely whole."""
        is_whole = end is None or self._last_is_whole(end.member)
        num = len(self.key_ends) - (not is_whole)
        num_members = self.member_ends[num - 1] if num else 0
        return ShardIndex(
            np.frombuffer(bytes(self.keys[: self.key_ends[num - 1] if num else 0]), np.uint8),
            _compact(self.key_ends[:num]),
            _compact(self.member_ends[:num]),
            _compact(self.suffix_numbers[:num_members]),
            _compact(self.offsets[:num_members]),
            _compact(self.sizes[:num_members]),
            [suffix.decode(errors="replace") for suffix in self.suffixes],
            f"{end} after {num} samples, at byte {end.position}" if end else None,
        )

    def _begin(self, key: bytes) -> None:
        self.keys += key
        self.key_ends.append(len(self.keys))
        self.member_ends.append(len(self.offsets))
        self._key, self._seen = key, set()

    def _last_is_whole(self, cut: bytes | None) -> bool:
        """Where the member that is cut does not tell: whether it has the members of the sample before."""
        num = len(self.key_ends)
        if cut is not None and _key_and_suffix(cut)[0]:
            return _key_and_suffix(cut)[0] != self._key
        if num < 2:
            return num == 0
        start, middle = _bounds(self.member_ends, num - 2)
        return set(self.suffix_numbers[start:middle]) == set(self.suffix_numbers[middle:])


def _key_and_suffix(name: bytes) -> tuple[bytes, bytes]:
    """Empty for a file that belongs to no sample."""
    folder, slash, file = name.rpartition(b"/")
    stem, dot, suffix = file.partition(b".")
    if not (stem and dot) or META.match(name):
        return b"", b""
    return folder + slash + stem, suffix.lower()


def _bounds(ends: Sequence[int], number: int) -> tuple[int, int]:
    """Where part `number` begins and ends."""
    return int(ends[number - 1]) if number else 0, int(ends[number])


def _compact(values: Sequence[int]) -> np.ndarray:
    found = np.array(values, dtype=np.int64)
    for smaller in (np.uint8, np.uint32):
        if not len(found) or found.max() <= np.iinfo(smaller).max:
            return found.astype(smaller)
    return found


def _with_digest(content: bytes) -> bytes | None:
    """What stands behind its digest; None where it is not what was written."""
    length = len(_digest(b""))
    return content[length:] if content[:length] == _digest(content[length:]) else None


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
