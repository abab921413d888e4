"""Pictures and videos with texts in WebDataset tar shards; the only module that imports webdataset.

A sample is three members of one tar file: `key.png`, `key.txt` (the text) and `key.json` (the labels). What
others wrote is read too, such as img2dataset's shards of CC3M and CC12M: the picture may be jpg, jpeg or
webp, or there may be a video (mp4, webm, mkv, mov, avi); there may be no labels, and the text may be
"caption" or "text" in `key.json`, a list of them too. `key.cls` is the label "cls".

webdataset writes; what is read is found by its index (`shard_index.py`), in any order.
"""

import os
import tempfile
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import webdataset
from tqdm import tqdm

from coca_video.data import remote
from coca_video.data.shard_index import (
    Extent,
    Outline,
    ShardIndex,
    cached_index,
    cached_outlines,
    index_file,
    read_idx,
)
from coca_video.data.shard_records import (
    ShardRecord,
    describe,
    encode_record,
    media_suffix,
    read_record,
)
from coca_video.errors import InputError

Result = TypeVar("Result")

PictureRecord = ShardRecord  # of a picture

MANY_THREADS = 16  # for indexing: most of it is waiting for disk or network
MANY_TRIES = 10  # to open a copy before it is removed
MAX_OPEN = 128  # shards at a time, in each process: to open one takes as long as to read a small sample
MAX_OPEN_COPIES = 32  # of remote shards, which stay on the disk while they are open
MAX_INDICES = 256  # of shards in memory, in each process: some 50 bytes a sample


class ShardProblem(NamedTuple):
    """A shard that ends too early; its samples up to there are in the set."""

    shard: str
    reason: str

    def __str__(self) -> str:
        return f"{self.shard}: {self.reason}"


class ShardSet(Sequence[ShardRecord]):
    """The samples of many shards, each read where it lies: shard by shard, in the shards' order by name.

    pattern: see `remote.expand`. A shard's index is made once and kept in `cache` (default: the folder in
    the environment variable COCA_VIDEO_CACHE, else ~/.cache/coca_video/shards); so are copies of remote
    shards, of at most `max_bytes` together. A remote shard is downloaded to be indexed, unless an index by
    NVIDIA DALI's wds2idx lies beside it (x.idx for x.tar).

    How many samples each shard has is kept in memory, and where they lie only of the shards used last: of a
    billion samples that would be some 50 GB in each process that reads.

    It can be pickled, and each process opens files of its own; a process reads with one thread at a time.
    Raises InputError where there is no shard, and for a shard that cannot be read or is no tar file.
    """

    def __init__(self, pattern: str | Path, *, cache: Path | None = None, max_bytes: int = 100 * 10**9):
        self.shards = remote.expand(pattern)
        self._cache, self._max_bytes = cache or default_cache(), max_bytes
        self._files: OrderedDict[int, BinaryIO] = OrderedDict()
        self._process = os.getpid()
        self._indices: OrderedDict[int, ShardIndex] = OrderedDict()
        self._facts = _in_threads(remote.facts, self.shards)
        outlines = self._outlines()
        self.sizes = [outline.size for outline in outlines]
        self._starts = list(accumulate(self.sizes, initial=0))
        self.problems = [
            ShardProblem(shard, outline.problem)
            for shard, outline in zip(self.shards, outlines)
            if outline.problem
        ]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, i: int) -> ShardRecord:
        return self.record(i)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_files": OrderedDict(), "_indices": self._indices_to_keep()}

    def record(self, i: int) -> ShardRecord:
        """Raises InputError, beginning with `key(i)`, for a sample without picture or video, or text."""
        shard, sample = self._place(i)
        members, key = self._members(i), self._index(shard).key(sample)
        return read_record(key, members, partial(self._read, shard, members), name=self.key(i))

    def key(self, i: int) -> str:
        """Shard and key, as messages name the sample. Here and below, no more than the index is read."""
        shard, sample = self._place(i)
        return f"{self.shards[shard]}: sample {self._index(shard).key(sample)}"

    def suffix(self, i: int) -> str | None:
        """Of the picture or video: its format. None where there is neither."""
        return media_suffix(self._members(i))

    def text_length(self, i: int) -> int | None:
        """Bytes of the text; None where it is not a member of its own."""
        extent = self._members(i).get("txt")
        return extent.size if extent else None

    def version(self, i: int) -> dict[str, str]:
        """What the sample depends on, in JSON's terms."""
        shard, sample = self._place(i)
        key = self._index(shard).key(sample)
        return {"shard": self.shards[shard], "version": self._facts[shard].version, "key": key}

    def texts(self) -> Iterator[str]:
        """All texts of all samples, in order; no picture is read. Samples whose text is bad are left out."""
        for i in range(len(self)):
            members, shard = self._members(i), self._place(i)[0]
            try:
                yield from describe(members, partial(self._read, shard, members), name=self.key(i)).texts
            except InputError:
                continue

    def _members(self, i: int) -> dict[str, Extent]:
        shard, sample = self._place(i)
        return self._index(shard).members(sample)

    def _place(self, i: int) -> tuple[int, int]:
        """The number of the shard that sample i lies in, and its number there."""
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        shard = bisect_right(self._starts, i) - 1
        return shard, i - self._starts[shard]

    def _read(self, shard: int, members: dict[str, Extent], suffix: str) -> bytes:
        name, extent = self.shards[shard], members[suffix]
        try:
            file = self._file(shard)
            file.seek(extent.offset)
            content = file.read(extent.size)
        except OSError as error:
            raise InputError(f"{name}: cannot read this shard ({error.strerror or error})") from error
        if len(content) < extent.size:
            raise InputError(f"{name}: has become shorter: no {extent.size} bytes at byte {extent.offset}")
        return content

    def _file(self, shard: int) -> BinaryIO:
        """The shard, open in this process; of many the ones used last stay open."""
        if self._process != os.getpid():  # a fork's files share their position with the parent's
            self._files, self._process = OrderedDict(), os.getpid()
        if shard not in self._files:
            self._files[shard] = self._open(self.shards[shard], self._facts[shard].version)
        self._files.move_to_end(shard)
        most = MAX_OPEN_COPIES if remote.is_remote(self.shards[shard]) else MAX_OPEN
        if len(self._files) > most:
            self._files.popitem(last=False)[1].close()
        return self._files[shard]

    def _open(self, shard: str, version: str) -> BinaryIO:
        for _ in range(MANY_TRIES):
            try:
                return open(self._local(shard, version), "rb")
            except OSError as error:  # or another process needed the room of a copy just now
                failure = error
        raise InputError(f"{shard}: cannot read this shard ({failure.strerror or failure})") from failure

    def _local(self, shard: str, version: str) -> Path:
        if not remote.is_remote(shard):
            return Path(shard)
        in_use = [Path(file.name) for file in self._files.values()]
        return remote.local_copy(shard, self._cache / "copies", self._max_bytes, version=version, keep=in_use)

    def _outlines(self) -> list[Outline]:
        versions = [(shard, facts.version) for shard, facts in zip(self.shards, self._facts)]
        make = partial(_in_threads, self._outline, range(len(self.shards)))
        return cached_outlines(versions, make=make, folder=self._cache)

    def _outline(self, shard: int) -> Outline:
        index = self._load_index(shard)
        if len(self.shards) <= MAX_INDICES or not self._can_keep():
            self._indices[shard] = index
        return Outline(len(index), index.problem)

    def _index(self, shard: int) -> ShardIndex:
        """Of many the ones used last stay in memory; the others are read again."""
        if shard not in self._indices:
            index, expected = self._load_index(shard), self.sizes[shard]
            if len(index) != expected:
                raise InputError(
                    f"{self.shards[shard]}: has changed: {len(index)} samples, it had {expected}"
                )
            self._indices[shard] = index
            while len(self._indices) > MAX_INDICES and self._can_keep():
                self._indices.popitem(last=False)
        self._indices.move_to_end(shard)
        return self._indices[shard]

    def _can_keep(self) -> bool:
        """Indices that the disk cannot hold stay in memory: to make one is to walk through its shard."""
        return os.access(self._cache, os.W_OK)

    def _indices_to_keep(self) -> OrderedDict[int, ShardIndex]:
        return OrderedDict() if self._can_keep() else self._indices

    def _load_index(self, number: int) -> ShardIndex:
        shard, facts = self.shards[number], self._facts[number]
        make = partial(self._make_index, shard, facts)
        return cached_index(shard, version=facts.version, make=make, folder=self._cache)

    def _make_index(self, shard: str, facts: remote.Facts) -> ShardIndex:
        if remote.is_remote(shard) and (text := remote.read_text(f"{shard.removesuffix('.tar')}.idx")):
            index = read_idx(text, size=facts.size)
            if index is not None:
                return index
        with self._open(shard, facts.version) as file:
            return index_file(file, name=shard)


def default_cache() -> Path:
    if folder := os.environ.get("COCA_VIDEO_CACHE"):
        return Path(folder)
    home = os.path.expanduser("~")  # stays "~" for a user without one, as in some containers
    return Path(tempfile.gettempdir() if home == "~" else home) / ".cache" / "coca_video" / "shards"


def write_shards(
    folder: Path, samples: Iterable[ShardRecord], *, max_per_shard: int, prefix: str
) -> list[Path]:
    """Write `folder/{prefix}-000000.tar` and on, replacing an older set of that prefix.

    The first shard is put in place last: where it is present, the set is whole.
    Raises InputError for a key with "." or "/", which webdataset would split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.absolute(), prefix=f".{prefix}-") as partial_folder:
        pattern = os.path.join(partial_folder.replace("%", "%%"), f"{prefix}-%06d.tar")
        # Without encoder and clock, the same samples make the same bytes.
        with webdataset.ShardWriter(
            pattern, maxcount=max_per_shard, encoder=False, mtime=0, verbose=0
        ) as writer:
            for sample in samples:
                writer.write(_members(sample))
        for old in sorted(folder.glob(f"{prefix}-{'[0-9]' * 6}.tar")):
            old.unlink()
        names = sorted(os.listdir(partial_folder))
        for name in reversed(names):
            os.replace(os.path.join(partial_folder, name), folder / name)
    return [folder / name for name in names]


def read_pictures(folder_or_glob: Path | str) -> list[ShardRecord]:
    """Every sample of a folder of shards, or of a glob pattern's shards, in shard order."""
    return list(iterate_pictures(folder_or_glob))


def iterate_pictures(folder_or_glob: Path | str) -> Iterator[ShardRecord]:
    """Like `read_pictures`, one sample at a time; every process that calls it reads all shards.

    Raises InputError where there is no shard, and for an unreadable shard or an incomplete sample, cut short.
    """
    for shard in remote.expand(folder_or_glob):
        samples = ShardSet(shard)
        yield from samples
        if samples.problems:
            raise InputError(str(samples.problems[0]))


def _in_threads(work: Callable[[Any], Result], shards: Sequence[Any]) -> list[Result]:
    pool = ThreadPoolExecutor(MANY_THREADS)
    try:
        done = pool.map(work, shards)
        # No bar for what takes no time.
        return list(tqdm(done, total=len(shards), desc="indexing", unit="shard", delay=3, leave=False))
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C nobody wants the rest


def _members(sample: ShardRecord) -> dict[str, str | bytes]:
    if "." in sample.key or "/" in sample.key:
        raise InputError(f"sample key {sample.key!r}: '.' and '/' are not allowed in a key")
    return {"__key__": sample.key, **encode_record(sample)}
