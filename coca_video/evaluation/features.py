"""Every example through the model once, in parts on disk: what an interrupted evaluation need not do again.

A part is a batch of consecutive records. Which part a record belongs to, and with which others it is encoded,
do not depend on the number of processes: several share the parts, and their result is that of one.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from coca_video.data.examples import Example, Examples, load_example
from coca_video.data.manifest import ClipRecord
from coca_video.data.views import ViewsConfig, record_origin
from coca_video.data.workers import Failure, run_killable
from coca_video.errors import InputError
from coca_video.evaluation.captioning import DecodingConfig
from coca_video.evaluation.subject import Subject
from coca_video.files import write_whole_bytes
from coca_video.ops.distributed import num_processes, rank, wait_for_all


@dataclass
class LoadingConfig:
    """How examples come from the disk."""

    batch_size: int = 32
    num_workers: int = 2  # processes that decode; 0: this one, which a bad video can hang or end
    timeout: float = 120.0  # seconds after which a video counts as not readable
    reduced_decoding: bool = False  # see data.loader.Clips

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
class Features:
    """Of the records that could be read, in their order."""

    indices: list[int]
    embeddings: dict[str, Tensor]  # by reading, unit length 'b views e'
    captions: dict[str, list[str]]  # by reading; empty where none were asked for
    failed: list[Failed]


def compute_features(
    subject: Subject,
    records: list[ClipRecord],
    *,
    views: ViewsConfig,
    loading: LoadingConfig,
    decoding: DecodingConfig | None,
    folder: Path,
) -> Features | None:
    """Features of all records; every process of a distributed run must call, with the same `folder`.

    decoding: how captions are written of each clip; None for none, and only with a single view.
    The first process has them, the others None.
    folder: keeps the parts; what lies there already is not computed again, unless files of its records have
        changed since. It is the caller's to remove.
    Raises InputError if not one record could be read, for an embedding that is no number, and where the
    processes do not share the folder.
    """
    parts = [
        range(i, min(i + loading.batch_size, len(records)))
        for i in range(0, len(records), loading.batch_size)
    ]
    files = [folder / f"part-{number:06d}.safetensors" for number in range(len(parts))]
    folder.mkdir(parents=True, exist_ok=True)
    _check_shared(folder)
    shares = range(rank(), len(parts), num_processes())
    own = [i for i in shares if not _is_current(files[i], [records[index] for index in parts[i]])]
    examples = Examples(
        records,
        views,
        subject.prepare,
        shorter_side=subject.protocol()["image_size"] if loading.reduced_decoding else None,
        cache=subject.cache,
    )
    for number, loaded in _loaded(examples, [parts[i] for i in own], own, loading):
        _write_part(files[number], subject, loaded, records, views, decoding)
    wait_for_all()
    return _joined(files, records) if rank() == 0 else None


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


def features_key(settings: dict[str, Any]) -> str:
    """Names the folder of an evaluation's parts: another setting, another folder."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


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
    file: Path,
    subject: Subject,
    loaded: Loaded,
    records: list[ClipRecord],
    views: ViewsConfig,
    decoding: DecodingConfig | None,
) -> None:
    failed = [Failed(i, each.kind, each.reason) for i, each in loaded if isinstance(each, Failure)]
    read = {i: each for i, each in loaded if isinstance(each, Example)}
    tensors, captions = {"indices": torch.tensor(list(read), dtype=torch.int64)}, {}
    if read:
        clips = [view for example in read.values() for view in example.views]
        encoded = subject.encode(clips, [example.origin for example in read.values()])
        for reading, rows in encoded.embeddings.items():
            if not rows.isfinite().all():
                where = f"{records[loaded[0][0]].path} to {records[loaded[-1][0]].path}"
                raise InputError(f"{where}: the model's embeddings are not all numbers ({reading})")
            tensors[reading] = rearrange(rows, "(b v) e -> b v e", v=views.num_views).contiguous()
        captions = subject.write(encoded, decoding) if decoding else {}
    about = {
        "failed": json.dumps([asdict(each) for each in failed]),
        "captions": json.dumps(captions),
        "files": _state([records[i] for i, _ in loaded]),
    }
    write_whole_bytes(file, save(tensors, metadata=about))


def _joined(files: list[Path], records: list[ClipRecord]) -> Features:
    indices, failed = [], []
    embeddings: dict[str, list[Tensor]] = {}
    captions: dict[str, list[str]] = {}
    for file in files:
        with safe_open(file, "pt") as part:
            about = part.metadata()
            failed += [Failed(**each) for each in json.loads(about["failed"])]
            for reading, texts in json.loads(about["captions"]).items():
                captions.setdefault(reading, []).extend(texts)
            for name in part.keys():
                if name == "indices":
                    indices += part.get_tensor(name).tolist()
                else:
                    embeddings.setdefault(name, []).append(part.get_tensor(name))
    if not indices:
        raise InputError(f"not one of {len(records)} examples could be read; the first: {failed[0].reason}")
    return Features(indices, {name: torch.cat(rows) for name, rows in embeddings.items()}, captions, failed)
