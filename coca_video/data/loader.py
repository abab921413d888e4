"""From sources on disk to a stream of training batches whose n-th batch depends on (seed, n) alone."""

import hashlib
import random
import signal
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from coca_video.data.manifest import ClipRecord, read_manifest
from coca_video.data.pictures import read_picture
from coca_video.data.samples import Batch, Sample, collate
from coca_video.data.sampling import Sampling, sample_frames
from coca_video.data.shards import PictureRecord, read_pictures
from coca_video.data.tokenizer import Tokenizer
from coca_video.data.transforms import Preprocessing
from coca_video.data.views import record_frames, record_origin
from coca_video.errors import InputError

Item = TypeVar("Item")


class Kind(str, Enum):
    pictures = "pictures"  # a folder of WebDataset shards
    clips = "clips"  # a manifest of video files


@dataclass
class SourceConfig:
    kind: Kind
    path: str
    batch_size: int = 256  # samples of this source in each batch
    num_frames: int = 1
    sampling: Sampling = Sampling.segment_random
    stride: int = 1  # frames from one to the next, for dense sampling

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_frames", "stride"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.kind is Kind.pictures and self.num_frames != 1:
            raise ValueError(f"num_frames must be 1 for pictures, got {self.num_frames}")


@dataclass
class DataConfig:
    sources: list[SourceConfig]
    frame_size: int = 64  # pixels at which frames wait for augmentation
    num_workers: int = 1
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    reduced_decoding: bool = False  # see Clips
    token_cache: str | None = None  # a folder: a frozen image encoder encodes each frame once for all runs

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("sources must name at least one source, got none")
        if self.frame_size < 1 or self.num_workers < 0:
            found = f"{self.frame_size} and {self.num_workers}"
            raise ValueError(f"frame_size must be positive and num_workers not negative, got {found}")


def one_text(record: PictureRecord | ClipRecord, rng: random.Random | None) -> str:
    """Any of a record's texts; without `rng` the first."""
    return rng.choice(record.texts) if rng and len(record.texts) > 1 else record.text


class Source:
    """A finite set of samples, one a record."""

    records: Sequence[PictureRecord | ClipRecord]
    frame_size: int
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.records)

    def texts(self) -> list[str]:
        return [text for record in self.records for text in record.texts]

    def sample(self, index: int, rng: random.Random | None) -> Sample:
        """`rng` decides what is random about a sample: which frames, and which of several texts."""
        record, frames = self.records[index], self.frames(index, rng)
        return Sample(frames, one_text(record, rng), self.key(index), record.labels)

    def key(self, index: int) -> str:
        """Names the sample in messages."""
        raise NotImplementedError

    def frames(self, index: int, rng: random.Random | None) -> Tensor:
        """uint8 't c h w', resized to frame_size. Without `rng` always the same."""
        raise NotImplementedError

    def origin(self, index: int) -> dict[str, Any]:
        """All that `frames` without `rng` depend on, in JSON's terms; nothing is decoded."""
        return {"frame_size": self.frame_size, "preprocessing": asdict(self.preprocessing)}


class Pictures(Source):
    """Pictures of WebDataset shards, kept encoded in memory: a picture is a video of one frame."""

    def __init__(self, path: Path, *, frame_size: int, preprocessing: Preprocessing):
        self.path = path
        self.records: list[PictureRecord] = read_pictures(path)
        self.frame_size, self.preprocessing = frame_size, preprocessing

    def key(self, index: int) -> str:
        return self.records[index].key

    def frames(self, index: int, rng: random.Random | None) -> Tensor:
        record = self.records[index]
        picture = read_picture(record.encoded, name=f"{self.path}: {record.key}")
        return self.preprocessing.resized(picture, size=self.frame_size)

    def origin(self, index: int) -> dict[str, Any]:
        digest = hashlib.sha256(self.records[index].encoded).hexdigest()
        return super().origin(index) | {"picture": digest}


class Clips(Source):
    """Video files and pictures of a manifest; only the sampled frames are read.

    reduced_decoding: the decoder scales frames down to what the preprocessing needs at least. Less work for
        large frames, but its filter is not the preprocessing's: pixels differ a little.
    """

    def __init__(
        self,
        path: Path,
        *,
        frame_size: int,
        preprocessing: Preprocessing,
        num_frames: int,
        sampling: Sampling,
        stride: int = 1,
        reduced_decoding: bool = False,
    ):
        self.records: list[ClipRecord] = read_manifest(path)
        for record in self.records:
            if not record.path.exists():
                raise InputError(f"{path}: names {record.path}, which does not exist")
        self.frame_size, self.preprocessing = frame_size, preprocessing
        self.sampling = {"num_samples": num_frames, "sampling": sampling, "stride": stride}
        self.reduced_decoding = reduced_decoding

    def key(self, index: int) -> str:
        return str(self.records[index].path)

    def frames(self, index: int, rng: random.Random | None) -> Tensor:
        choose = partial(sample_frames, rng=rng, **self.sampling)
        shorter_side = self.frame_size if self.reduced_decoding else None
        frames = record_frames(self.records[index], choose, shorter_side=shorter_side)
        return self.preprocessing.resized(frames, size=self.frame_size)

    def origin(self, index: int) -> dict[str, Any]:
        reading = self.sampling | {"reduced_decoding": self.reduced_decoding}
        return super().origin(index) | record_origin(self.records[index]) | reading


def open_source(
    config: SourceConfig, *, frame_size: int, preprocessing: Preprocessing, reduced_decoding: bool = False
) -> Source:
    shared = {"frame_size": frame_size, "preprocessing": preprocessing}
    if config.kind is Kind.pictures:
        return Pictures(Path(config.path), **shared)
    frames = {"num_frames": config.num_frames, "sampling": config.sampling, "stride": config.stride}
    return Clips(Path(config.path), **frames, **shared, reduced_decoding=reduced_decoding)


class BatchStream(Dataset[Batch]):
    """Item n is training batch n, a pure function of (seed, n): a resumed run reads on where it stopped.

    Every batch holds samples of each source, as many as its batch_size says: pictures beside clips, so that
    neither the batch's statistics nor its negatives tell them apart. Each source is shuffled anew every
    epoch of its own and read without repetition.
    """

    def __init__(
        self,
        sources: list[Source],
        configs: list[SourceConfig],
        tokenizer: Tokenizer,
        *,
        max_length: int,
        num_batches: int,
        seed: int,
    ):
        for source, config in zip(sources, configs):
            if config.batch_size > len(source):
                found = f"batch_size {config.batch_size} exceeds its {len(source)} samples"
                raise InputError(f"{config.path}: {found}")
        self.sources, self.configs, self.tokenizer = sources, configs, tokenizer
        self.max_length, self.num_batches, self.seed = max_length, num_batches, seed

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, step: int) -> Batch:
        rng = random.Random(f"{self.seed} sample {step}")
        samples = []
        for which, (source, config) in enumerate(zip(self.sources, self.configs)):
            positions = range(step * config.batch_size, (step + 1) * config.batch_size)
            samples += [source.sample(self._index(which, position), rng) for position in positions]
        return collate(samples, self.tokenizer, max_length=self.max_length)

    def _index(self, which: int, position: int) -> int:
        epoch, within = divmod(position, len(self.sources[which]))
        return _order(len(self.sources[which]), f"{self.seed} order {which} {epoch}")[within]


@lru_cache(maxsize=64)  # a batch asks for one position at a time
def _order(num: int, seed: str) -> list[int]:
    """A shuffled range."""
    order = list(range(num))
    random.Random(seed).shuffle(order)
    return order


def training_batches(stream: BatchStream, *, first: int, num_workers: int) -> Iterator[Batch]:
    """The stream from batch `first` on, built in worker processes."""
    return load_items(stream, range(first, len(stream)), num_workers=num_workers)


def load_items(dataset: Dataset[Item], order: Sequence[int], *, num_workers: int) -> Iterator[Item]:
    """The items of a dataset in this order, built in worker processes."""
    items = DataLoader(
        dataset,
        batch_size=None,
        sampler=order,
        num_workers=num_workers,
        prefetch_factor=2 if num_workers else None,
        worker_init_fn=_leave_signals_to_the_parent,
    )
    try:
        yield from items
    except InputError as error:  # torch puts a worker's traceback before the message
        raise InputError(str(error).rpartition("InputError: ")[2].strip()) from error


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C and SIGTERM may reach the whole process group: the loop needs its workers to end the step."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
