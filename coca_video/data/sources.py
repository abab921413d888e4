"""Where samples come from: a manifest of files, or shards. Each is a finite set that is read by index."""

import hashlib
import random
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import Enum
from functools import partial
from itertools import accumulate, pairwise
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coca_video.data.bad_samples import SHARD, BadSample, Unreadable, reading
from coca_video.data.captions import Captions, Record, Teller
from coca_video.data.manifest import ClipRecord, belongs, read_manifest
from coca_video.data.pictures import is_picture
from coca_video.data.remote import is_remote
from coca_video.data.samples import Sample
from coca_video.data.sampling import Sampling, sample_frames
from coca_video.data.shard_frames import shard_frames
from coca_video.data.shard_records import VIDEOS, ShardRecord
from coca_video.data.shards import ShardSet
from coca_video.data.transforms import Preprocessing
from coca_video.data.views import record_origin, timed_frames
from coca_video.errors import InputError

FEW_PICTURES = 200_000  # whose order is a plain shuffle, in however many shards they lie


class Kind(str, Enum):
    pictures = "pictures"  # WebDataset shards of pictures
    clips = "clips"  # a manifest of videos and pictures
    shards = "shards"  # WebDataset shards of videos and pictures


class Bucket(str, Enum):
    """What the samples of a batch have about as much of, so that little of it is padding."""

    none = "none"
    text = "text"  # bytes of it
    frames = "frames"


@dataclass
class SourceConfig:
    """path: a manifest; for shards a folder, a glob, braces as in x-{000..123}.tar, or an URL of these."""

    kind: Kind
    path: str
    batch_size: int = 256  # samples of this source in each batch of all processes together
    num_frames: int = 1  # of a clip; with frames_per_second the most
    sampling: Sampling = Sampling.segment_random
    stride: int = 1  # frames from one to the next, for dense sampling
    weight: float = 1.0  # how often a batch is of this source; for data.mixing=alternating
    frames_per_second: float | None = (
        None  # of a clip: a longer one has more frames; None: all have num_frames
    )
    prompts: str | None = None  # a set of templates by its name, or a text file: they say the label
    label: str | None = None  # which of the labels; None: the text is the label
    subset: str = ""  # the samples that take part: "" all, "label" those with it, "label=value" with it so
    resample: bool = False  # samples are drawn with replacement
    shuffle_shards: int = 16  # shards whose samples are shuffled together: more need more open files
    bucket: Bucket = Bucket.none

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path must name a manifest or shards, got ''")
        for name in ("batch_size", "num_frames", "stride", "shuffle_shards"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 < self.weight < inf:
            raise ValueError(f"weight must be positive, got {self.weight}")
        if self.frames_per_second is not None and not 0 < self.frames_per_second < inf:
            raise ValueError(f"frames_per_second must be positive, got {self.frames_per_second}")
        if self.label is not None and self.prompts is None:
            raise ValueError(
                f"label={self.label} would have no effect; prompts say a label, and are not given"
            )
        if self.kind is Kind.pictures:
            self._check_pictures()

    def _check_pictures(self) -> None:
        if self.num_frames != 1:
            raise ValueError(f"num_frames must be 1 for pictures, got {self.num_frames}")
        for name, default in (("frames_per_second", None), ("bucket", Bucket.none)):
            found = getattr(self, name)
            if found not in (default, Bucket.text):
                raise ValueError(
                    f"{name} would have no effect for pictures, got {getattr(found, 'value', found)}"
                )


@dataclass(frozen=True)
class FrameChoice:
    """Which frames of a clip are read."""

    num_frames: int  # with frames_per_second the most
    sampling: Sampling
    stride: int = 1
    frames_per_second: float | None = None

    def count(self, seconds: float | None) -> int:
        """How many; the most, where nobody knows how long the clip is."""
        if self.frames_per_second is None or seconds is None:
            return self.num_frames
        return max(1, min(self.num_frames, round(seconds * self.frames_per_second)))

    def choose(self, num_frames: int, seconds: float, *, rng: random.Random | None) -> list[int]:
        settings = {"sampling": self.sampling, "stride": self.stride, "rng": rng}
        return sample_frames(num_frames, num_samples=self.count(seconds), **settings)

    def origin(self) -> dict[str, Any]:
        """In JSON's terms. What is not set is left out: the tokens of older caches are found by the rest."""
        own = {"num_samples": self.num_frames, "sampling": self.sampling, "stride": self.stride}
        rate = self.frames_per_second
        return own | ({} if rate is None else {"frames_per_second": rate})


Choose = Callable[[int, float], list[int]]


class Source:
    """A finite set of samples, one a record."""

    path: str  # as the settings name it
    frame_size: int
    preprocessing: Preprocessing
    choice: FrameChoice
    captions: Teller = Captions()
    reduced_decoding: bool = False

    def __len__(self) -> int:
        return sum(self.sizes)

    @property
    def sizes(self) -> Sequence[int]:
        """Samples of each part that lies together on the disk, in order."""
        raise NotImplementedError

    @property
    def problems(self) -> list[BadSample]:
        """What is lost of the set as a whole."""
        return []

    def record(self, index: int) -> Record:
        raise NotImplementedError

    def readable(self) -> Iterator[tuple[int, Record]]:
        """The records that can be read, with their numbers."""
        for index in range(len(self)):
            try:
                with reading("record", self.key(index)):
                    record = self.record(index)
            except Unreadable:
                continue
            yield index, record

    def key(self, index: int) -> str:
        """Names the sample in messages; nothing is read."""
        raise NotImplementedError

    def texts(self) -> Iterator[str]:
        """Of all records, as training says them; what cannot be read is left out."""
        raise NotImplementedError

    def length(self, index: int, bucket: Bucket) -> int:
        """Of a sample, in terms of `bucket`, as far as it is known without decoding."""
        raise NotImplementedError

    def sample(self, index: int, rng: random.Random | None) -> Sample:
        """`rng` decides what is random about a sample: which frames, and which of several texts.

        Raises Unreadable, an InputError.
        """
        name = self.key(index)
        with reading("record", name):
            record = self.record(index)
        with reading("video" if self.is_video(index) else "picture", name):
            frames = self.frames_of(record, rng)
        return self.described(record, rng, name=name, frames=frames)

    def described(
        self,
        record: Record,
        rng: random.Random | None,
        *,
        name: str,
        frames: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> Sample:
        """A record's frames, or their tokens, with a text."""
        with reading("text", name):
            caption = self.captions.choose(record, rng, name=name)
        said = {"group": caption.group, "prompt": caption.prompt, "target": caption.target}
        return Sample(frames, caption.text, name, record.labels, tokens, **said)

    def frames(self, index: int, rng: random.Random | None) -> Tensor:
        """uint8 't c h w', resized to frame_size. Without `rng` always the same."""
        return self.frames_of(self.record(index), rng)

    def frames_of(self, record: Record, rng: random.Random | None) -> Tensor:
        shorter_side = self.frame_size if self.reduced_decoding else None
        frames = self.read(record, partial(self.choice.choose, rng=rng), shorter_side=shorter_side)
        return self.preprocessing.resized(frames, size=self.frame_size)

    def read(self, record: Record, choose: Choose, *, shorter_side: int | None) -> Tensor:
        """The frames that `choose` takes of a video's number of them and its seconds, or the picture."""
        raise NotImplementedError

    def is_video(self, index: int) -> bool:
        """By its name: nothing is read."""
        raise NotImplementedError

    def filler(self) -> Sample:
        """A sample of no meaning, for a process that has none: black frames."""
        size = (self.captions.num_pictures, 3, self.frame_size, self.frame_size)
        return filler_of(self.captions, frames=torch.zeros(size, dtype=torch.uint8))

    def origin(self, index: int) -> dict[str, Any]:
        """All that `frames` without `rng` depend on, in JSON's terms; nothing is decoded."""
        return self._origin_of(self.version(index))

    def origins(self, index: int) -> list[dict[str, Any]]:
        """`origin` of what of a sample is encoded alone: each picture of a pair."""
        return [self.origin(index)]

    def identities(self, index: int) -> list[Hashable]:
        """One for each of `origins`; equal for those that are known to be equal without a look at files."""
        return [index]

    def part(self, index: int, which: int) -> Tensor:
        """The frames, without `rng`, of one of `origins`."""
        return self.frames(index, None)

    def version(self, index: int) -> dict[str, Any]:
        """The file that `frames` are read from, and its state, in JSON's terms."""
        raise NotImplementedError

    def _origin_of(self, version: dict[str, Any]) -> dict[str, Any]:
        how = self.choice.origin() | {"reduced_decoding": self.reduced_decoding}
        return self._resizing() | version | how

    def _resizing(self) -> dict[str, Any]:
        return {"frame_size": self.frame_size, "preprocessing": asdict(self.preprocessing)}


class Shards(Source):
    """Pictures and videos of WebDataset shards; a picture is a video of one frame."""

    def __init__(
        self,
        path: Path | str,
        *,
        frame_size: int,
        preprocessing: Preprocessing,
        choice: FrameChoice,
        captions: Teller = Captions(),
        reduced_decoding: bool = False,
    ):
        self.path, self.captions = str(path), captions
        self.set = ShardSet(path)
        self.frame_size, self.preprocessing = frame_size, preprocessing
        self.choice, self.reduced_decoding = choice, reduced_decoding

    @property
    def sizes(self) -> list[int]:
        return self.set.sizes

    @property
    def problems(self) -> list[BadSample]:
        return [BadSample(self.path, each.shard, SHARD, each.reason) for each in self.set.problems]

    def record(self, index: int) -> ShardRecord:
        return self.set.record(index)

    def key(self, index: int) -> str:
        return self.set.key(index)

    def texts(self) -> Iterator[str]:
        if self.captions.is_plain:
            return self.set.texts()
        return self.captions.all(record for _, record in self.readable())

    def length(self, index: int, bucket: Bucket) -> int:
        if bucket is Bucket.text:
            return self.set.text_length(index) or 0
        return self.choice.count(None) if self.is_video(index) else 1

    def is_video(self, index: int) -> bool:
        return self.set.suffix(index) in VIDEOS

    def read(self, record: ShardRecord, choose: Choose, *, shorter_side: int | None) -> Tensor:
        return shard_frames(record, choose, shorter_side=shorter_side)

    def version(self, index: int) -> dict[str, Any]:
        return self.set.version(index)


class Pictures(Shards):
    """Pictures of WebDataset shards."""

    def __init__(
        self,
        path: Path | str,
        *,
        frame_size: int,
        preprocessing: Preprocessing,
        captions: Teller = Captions(),
    ):
        shared = {"frame_size": frame_size, "preprocessing": preprocessing, "captions": captions}
        super().__init__(path, choice=FrameChoice(1, Sampling.uniform), **shared)

    def frames_of(self, record: ShardRecord, rng: random.Random | None) -> Tensor:
        if record.is_video:
            raise InputError(f"{record.name}: is a video, expected a picture; kind=shards reads both")
        return super().frames_of(record, rng)

    def origin(self, index: int) -> dict[str, Any]:
        """The picture itself, wherever it lies."""
        digest = hashlib.sha256(self.record(index).encoded).hexdigest()
        return self._resizing() | {"picture": digest}


class Clips(Source):
    """Video files and pictures of a manifest; only the sampled frames are read.

    reduced_decoding: the decoder scales frames down to what the preprocessing needs at least. Less work for
        large frames, but its filter is not the preprocessing's: pixels differ a little.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        frame_size: int,
        preprocessing: Preprocessing,
        num_frames: int,
        sampling: Sampling,
        stride: int = 1,
        frames_per_second: float | None = None,
        captions: Teller = Captions(),
        reduced_decoding: bool = False,
    ):
        self.path, self.captions = str(path), captions
        self.records: list[ClipRecord] = read_manifest(path)
        for file in (file for record in self.records for file in record.files):
            if not file.exists():
                raise InputError(f"{path}: names {file}, which does not exist")
        self.frame_size, self.preprocessing = frame_size, preprocessing
        self.choice = FrameChoice(num_frames, sampling, stride, frames_per_second)
        self.reduced_decoding = reduced_decoding

    @property
    def sizes(self) -> list[int]:
        return [len(self.records)]

    def record(self, index: int) -> ClipRecord:
        return self.records[index]

    def key(self, index: int) -> str:
        return str(self.records[index].path)

    def texts(self) -> Iterator[str]:
        return self.captions.all(self.records)

    def length(self, index: int, bucket: Bucket) -> int:
        record = self.records[index]
        if bucket is Bucket.text:
            return len(record.text.encode("utf-8", "replace"))
        return self.choice.count(_seconds(record)) if self.is_video(index) else 1

    def is_video(self, index: int) -> bool:
        return not is_picture(self.records[index].path)

    def frames_of(self, record: ClipRecord, rng: random.Random | None) -> Tensor:
        """Of a pair, the frames of the second picture behind those of the first."""
        return torch.cat([super(Clips, self).frames_of(each, rng) for each in record.singly])

    def read(self, record: ClipRecord, choose: Choose, *, shorter_side: int | None) -> Tensor:
        return timed_frames(record, choose, shorter_side=shorter_side)

    def version(self, index: int) -> dict[str, Any]:
        return record_origin(self.records[index])

    def origins(self, index: int) -> list[dict[str, Any]]:
        return [self._origin_of(record_origin(each)) for each in self.records[index].singly]

    def identities(self, index: int) -> list[Hashable]:
        """Several questions on a picture are one picture."""
        return [(str(each.path), *each.span) for each in self.records[index].singly]

    def part(self, index: int, which: int) -> Tensor:
        return super().frames_of(self.records[index].singly[which], None)


def _seconds(record: ClipRecord) -> float | None:
    """How long a clip is, by its span, or by a label "duration"; None: nobody says so."""
    if record.span:
        return record.span[1] - record.span[0]
    with suppress(KeyError, ValueError):
        seconds = float(record.labels["duration"])
        return seconds if 0 < seconds < inf else None
    return None


class Subset(Source):
    """The samples of a source that have a label."""

    def __init__(self, source: Source, subset: str):
        """subset: see `manifest.belongs`. Reads every record once. Raises InputError if none is in it."""
        self.source, self.path, self.captions = source, source.path, source.captions
        self.frame_size, self.preprocessing = source.frame_size, source.preprocessing
        self._indices = [i for i, record in source.readable() if belongs(record.labels, subset)]
        if not self._indices:
            raise InputError(f"{self.path}: none of its {len(source)} samples is in the subset {subset!r}")
        places = [bisect_left(self._indices, end) for end in accumulate(source.sizes, initial=0)]
        self._sizes = [end - start for start, end in pairwise(places)]

    @property
    def sizes(self) -> Sequence[int]:
        return self._sizes

    @property
    def problems(self) -> list[BadSample]:
        return self.source.problems

    def record(self, index: int) -> Record:
        return self.source.record(self._indices[index])

    def key(self, index: int) -> str:
        return self.source.key(self._indices[index])

    def texts(self) -> Iterator[str]:
        return self.captions.all(map(self.record, range(len(self))))

    def length(self, index: int, bucket: Bucket) -> int:
        return self.source.length(self._indices[index], bucket)

    def is_video(self, index: int) -> bool:
        return self.source.is_video(self._indices[index])

    def frames_of(self, record: Record, rng: random.Random | None) -> Tensor:
        return self.source.frames_of(record, rng)

    def origin(self, index: int) -> dict[str, Any]:
        return self.source.origin(self._indices[index])

    def origins(self, index: int) -> list[dict[str, Any]]:
        return self.source.origins(self._indices[index])

    def identities(self, index: int) -> list[Hashable]:
        return self.source.identities(self._indices[index])

    def part(self, index: int, which: int) -> Tensor:
        return self.source.part(self._indices[index], which)


def filler_of(captions: Teller, *, frames: Tensor | None = None, tokens: Tensor | None = None) -> Sample:
    said = captions.filler()
    return Sample(frames, said.text, "filler", tokens=tokens, prompt=said.prompt, target=said.target)


def open_source(
    config: SourceConfig, *, frame_size: int, preprocessing: Preprocessing, reduced_decoding: bool = False
) -> Source:
    shared = {"frame_size": frame_size, "preprocessing": preprocessing}
    source = _open(config, **shared, reduced_decoding=reduced_decoding)
    return Subset(source, config.subset) if config.subset else source


def _open(
    config: SourceConfig, *, frame_size: int, preprocessing: Preprocessing, reduced_decoding: bool
) -> Source:
    captions = Captions.of(config.prompts, config.label)
    shared = {"frame_size": frame_size, "preprocessing": preprocessing, "captions": captions}
    if config.kind is Kind.pictures:
        return Pictures(config.path, **shared)
    frames = {"num_frames": config.num_frames, "sampling": config.sampling, "stride": config.stride}
    frames["frames_per_second"] = config.frames_per_second
    shared["reduced_decoding"] = reduced_decoding
    if config.kind is Kind.shards:
        return Shards(config.path, choice=FrameChoice(**frames), **shared)
    if is_remote(config.path):
        raise InputError(f"{config.path}: a manifest must be a file here; kind=shards reads addresses")
    return Clips(config.path, **frames, **shared)


def shuffle_window(source: Source, config: SourceConfig) -> int | None:
    """Parts whose samples are shuffled together; None: all."""
    if config.kind is Kind.pictures and len(source) <= FEW_PICTURES:
        return None
    return config.shuffle_shards
