"""Every example through the model once, in parts on disk: what an interrupted evaluation need not do again.

A part is a batch of consecutive records. Which part a record belongs to, and with which others it is encoded,
do not depend on the number of processes: several share the parts, and their result is that of one.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from coca_video.data.examples import Example, Examples, load_example
from coca_video.data.manifest import ClipRecord
from coca_video.data.views import record_origin
from coca_video.data.workers import Failure, run_killable
from coca_video.errors import InputError
from coca_video.files import write_whole_bytes
from coca_video.ops.distributed import num_processes, rank, wait_for_all

INDICES = "indices"


@dataclass
class LoadingConfig:
    """How examples come from the disk."""

    batch_size: int = 32
    num_workers: int = 2  # processes that decode; 0: this one, which a bad video can hang or end
    timeout: float = 120.0  # seconds after which a video counts as not readable
    reduced_decoding: bool = False  # see data.sources.Clips

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.num_workers < 0 or self.timeout <= 0:
            found = f"{self.batch_size}, {self.num_workers} and {self.timeout}"
            allowed = "batch_size and timeout must be positive and num_workers not negative"
            raise ValueError(f"{allowed}, got {found}")


@dataclass
class Failed:
    """A record that could not be read: counted, never replaced."""

    index: int  # of the record
    kind: str  # error, timeout, crash
    reason: str


@dataclass
class Rows:
    """What was made of records: in each tensor a row, in each list a text a record."""

    tensors: dict[str, Tensor] = field(default_factory=dict)  # on the CPU
    texts: dict[str, list[str]] = field(default_factory=dict)


class Maker(Protocol):
    """Makes the same rows of a part whenever it is asked to."""

    def __call__(self, examples: list[Example], records: list[ClipRecord]) -> Rows:
        """Of the examples of a part, one or more, and their records."""


@dataclass
class Made:
    """Of the records that could be read, in their order."""

    indices: list[int]
    rows: dict[str, Rows]  # by maker
    failed: list[Failed]


def make_in_parts(
    examples: Examples, makers: Mapping[str, Maker], *, loading: LoadingConfig, folder: Path
) -> Made | None:
    """What the makers make of all records; every process of a distributed run must call, with one `folder`.

    The first process has it, the others None.
    folder: keeps the parts; what lies there already is not computed again, unless files of its records have
        changed since. It is the caller's to remove.
    Raises InputError if not one record could be read, and where the processes do not share the folder.
    """
    records, size = examples.records, loading.batch_size
    parts = [range(i, min(i + size, len(records))) for i in range(0, len(records), size)]
    files = [folder / f"part-{number:06d}.safetensors" for number in range(len(parts))]
    folder.mkdir(parents=True, exist_ok=True)
    _check_shared(folder)
    shares = range(rank(), len(parts), num_processes())
    own = [i for i in shares if not _is_current(files[i], [records[index] for index in parts[i]])]
    for number, loaded in _loaded(examples, [parts[i] for i in own], own, loading):
        _write_part(files[number], loaded, records, makers)
    wait_for_all()
    return _joined(files, len(records)) if rank() == 0 else None


def parts_key(settings: dict[str, Any]) -> str:
    """Names the folder of an evaluation's parts: another setting, another folder."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def check_numbers(rows: dict[str, Tensor], records: list[ClipRecord], *, what: str) -> None:
    """Raises InputError, naming the records' files, for what a model that has diverged makes of them."""
    for name, tensor in rows.items():
        if not tensor.isfinite().all():
            where = f"{records[0].path} to {records[-1].path}"
            raise InputError(f"{where}: the model's {what} are not all numbers ({name})")


def _check_shared(folder: Path) -> None:
    """On several machines a folder may be each one's own: known now, not when the parts are put together."""
    if num_processes() == 1:
        return
    (folder / f"process-{rank()}").touch()
    wait_for_all()
    missing = [i for i in range(num_processes()) if not (folder / f"process-{i}").exists()]
    if missing:
        raise InputError(f"{folder}: is not that of process {missing[0]}; all processes must share a folder")


def _is_current(file: Path, records: list[ClipRecord]) -> bool:
    """Whether a part is there, whole, and of files as they are."""
    try:
        with safe_open(file, "pt") as part:
            return (part.metadata() or {}).get("files") == _state(records)
    except (OSError, SafetensorError):
        return False


def _state(records: list[ClipRecord]) -> str:
    """Of the records' files: which ones, of what size, last changed when."""
    return hashlib.sha256(json.dumps([_origin(record) for record in records]).encode()).hexdigest()


def _origin(record: ClipRecord) -> dict[str, Any] | None:
    try:
        return record_origin(record)
    except (OSError, ValueError):  # a name may hold what no file's can
        return None


Loaded = list[tuple[int, Example | Failure]]  # of a part, by the record's number


def _loaded(
    examples: Examples, parts: list[range], numbers: list[int], loading: LoadingConfig
) -> Iterator[tuple[int, Loaded]]:
    """The examples of each part, read in processes that can be killed."""
    indices = [index for part in parts for index in part]
    pool = {"num_workers": loading.num_workers, "timeout": loading.timeout}
    with tqdm(total=len(indices), desc="clips", unit="clip", disable=rank() != 0) as bar:
        results = run_killable(load_example, indices, context=examples, **pool)
        for number, part in zip(numbers, parts):
            yield number, list(islice(results, len(part)))
            bar.update(len(part))


def _write_part(
    file: Path, loaded: Loaded, records: Sequence[ClipRecord], makers: Mapping[str, Maker]
) -> None:
    failed = [Failed(i, each.kind, each.reason) for i, each in loaded if isinstance(each, Failure)]
    read = {i: each for i, each in loaded if isinstance(each, Example)}
    tensors, texts = {INDICES: torch.tensor(list(read), dtype=torch.int64)}, {}
    for name, make in makers.items() if read else ():
        rows = make(list(read.values()), [records[i] for i in read])
        tensors |= {f"{name}/{each}": tensor.contiguous() for each, tensor in rows.tensors.items()}
        texts[name] = rows.texts
    about = {
        "failed": json.dumps([asdict(each) for each in failed]),
        "texts": json.dumps(texts),
        "files": _state([records[i] for i, _ in loaded]),
    }
    write_whole_bytes(file, save(tensors, metadata=about))


def _joined(files: list[Path], num_records: int) -> Made:
    made = Made([], {}, [])
    tensors: dict[str, list[Tensor]] = {}
    for file in files:
        with safe_open(file, "pt") as part:
            about = part.metadata()
            for name in part.keys():
                tensors.setdefault(name, []).append(part.get_tensor(name))
        made.failed += [Failed(**each) for each in json.loads(about["failed"])]
        for maker, texts in json.loads(about["texts"]).items():
            _extend(made.rows.setdefault(maker, Rows()).texts, texts)
    made.indices = torch.cat(tensors.pop(INDICES)).tolist()
    if not made.indices:
        first = made.failed[0].reason
        raise InputError(f"not one of {num_records} examples could be read; the first: {first}")
    for name, of_parts in tensors.items():
        maker, _, of_maker = name.partition("/")
        made.rows[maker].tensors[of_maker] = torch.cat(of_parts)
    return made


def _extend(all_texts: dict[str, list[str]], texts: dict[str, list[str]]) -> None:
    for name, of_part in texts.items():
        all_texts.setdefault(name, []).extend(of_part)
