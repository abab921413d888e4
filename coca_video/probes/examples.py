"""What a probe learns from and is judged by: labelled pictures and clips of a data set, and their views."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from coca_video.data.bad_samples import reading
from coca_video.data.benchmarks.card import Card, read_card
from coca_video.data.captions import Record
from coca_video.data.examples import Resized
from coca_video.data.manifest import belongs
from coca_video.data.samples import text_hash
from coca_video.data.sources import Kind, Source, SourceConfig, open_source
from coca_video.data.transforms import Augmentation, Preprocessing
from coca_video.data.views import ViewsConfig, views_of
from coca_video.errors import InputError

MANY_RECORDS = 20_000  # reading the labels of so many takes long enough for a progress bar
HASHES = 1 << 64


@dataclass
class PartConfig:
    """A part of a data set. Samples without the probe's label take no part."""

    path: str  # a manifest; for shards a folder, a glob, braces as in x-{000..123}.tar, or an URL of these
    kind: Kind = Kind.clips
    subset: str = ""  # the samples that take part, see `data.manifest.belongs`
    views: ViewsConfig = field(default_factory=ViewsConfig)

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path must name a manifest or shards, got ''")


@dataclass
class CopiesConfig:
    """Augmented copies of each view of a training example, encoded once like the view itself."""

    number: int = 0
    margin: float = 1.0  # a copy is cut from frames of so many times the model's size
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.number < 0 or self.margin < 1:
            found = f"{self.number} and {self.margin}"
            raise ValueError(f"number must not be negative and margin at least 1, got {found}")


@dataclass(frozen=True)
class Example:
    index: int  # within its source
    label: str
    name: str  # in results
    path: str
    text: str
    labels: dict[str, str]


class Part:
    """The examples of a part, and what is seen of each: all its views, then all copies of these.

    Items are what is encoded: `num_items` in a row are those of one example.
    """

    def __init__(
        self,
        config: PartConfig,
        source: Source,
        examples: list[Example],
        *,
        copies: CopiesConfig = CopiesConfig(),
    ):
        self.config, self.source, self.examples, self.copies = config, source, examples, copies
        self.prepare = Resized(source.preprocessing, source.frame_size)

    @property
    def num_items(self) -> int:
        """Of each example."""
        return self.config.views.num_views * (1 + self.copies.number)

    def __len__(self) -> int:
        return len(self.examples)

    def of(self, examples: list[Example], *, copies: CopiesConfig | None = None) -> "Part":
        """The same with other examples."""
        return Part(self.config, self.source, examples, copies=self.copies if copies is None else copies)

    def origins(self, number: int) -> list[dict[str, Any]]:
        """All that each item of an example depends on, in JSON's terms; nothing is decoded.

        Of a manifest's clip with a single view it is what an evaluation's tokens are kept under too.
        """
        shorter_side = self.prepare.size if self.source.reduced_decoding else None
        how = {"prepared": repr(self.prepare), "shorter_side": shorter_side}
        views = self.config.views
        whole = self.source.version(self.examples[number].index) | asdict(views) | how
        several = views.num_views > 1
        seen = [whole | ({"view": view} if several else {}) for view in range(views.num_views)]
        about = asdict(self.copies) | {"number": None}
        copied = [each | {"copy": n, "copies": about} for n in range(self.copies.number) for each in seen]
        return seen + copied

    def frames(self, number: int, wanted: Sequence[int]) -> list[Tensor]:
        """Those items of an example: uint8, or float from 0 to 255, 't c h w' of the model's size.

        Raises InputError, naming the file, for an example that cannot be read.
        """
        index = self.examples[number].index
        name = self.source.key(index)
        with reading("record", name):
            record = self.source.record(index)
        with reading("frames", name):
            views = self._views(record)
        origins = self.origins(number)
        return [self._item(views, origins[item], item) for item in wanted]

    def _views(self, record: Record) -> list[tuple[Tensor, float]]:
        shorter_side = self.source.frame_size if self.source.reduced_decoding else None
        read = partial(self.source.read, record, shorter_side=shorter_side)
        return views_of(lambda choose: read(lambda num_frames, _: choose(num_frames)), self.config.views)

    def _item(self, views: list[tuple[Tensor, float]], origin: dict[str, Any], item: int) -> Tensor:
        frames, position = views[item % len(views)]
        if item < len(views):
            return self.prepare(frames, position)
        size = self.prepare.size
        margin = round(self.copies.margin * size)
        larger = self.source.preprocessing.resized(frames, size=margin, position=position)
        generator = torch.Generator().manual_seed(text_hash(json.dumps(origin, sort_keys=True)) % HASHES)
        return self.copies.augmentation(larger.unsqueeze(0), size=size, generator=generator)[0]


def open_part(
    config: PartConfig,
    *,
    label: str,
    frame_size: int,
    preprocessing: Preprocessing,
    reduced_decoding: bool = False,
) -> Part:
    """Reads every record once. Raises InputError where no sample takes part, naming the labels there are.

    A record that cannot be read takes no part.
    """
    source = open_source(
        SourceConfig(config.kind, config.path),
        frame_size=frame_size,
        preprocessing=preprocessing,
        reduced_decoding=reduced_decoding,
    )
    seen: set[str] = set()
    examples = []
    bar = {"desc": f"labels of {source.path}", "disable": len(source) < MANY_RECORDS}
    for index, record in tqdm(source.readable(), total=len(source), **bar):
        seen.update(record.labels)
        if label in record.labels and belongs(record.labels, config.subset):
            examples.append(_example(source, index, record, label))
    if not examples:
        found = ", ".join(sorted(seen)) or "no labels"
        within = f" in the subset {config.subset!r}" if config.subset else ""
        raise InputError(f"{config.path}: no sample{within} has the label {label!r}; there are {found}")
    return Part(config, source, examples)


def _example(source: Source, index: int, record: Record, label: str) -> Example:
    path = str(getattr(record, "path", source.key(index)))
    return Example(index, record.labels[label], record.name or path, path, record.text, record.labels)


def held_out(part: Part, share: float) -> tuple[Part, Part]:
    """A part to learn from and one to choose by, of about that share of the examples.

    Which is which depends on their names alone, folders not included: a data set can be moved. The second
    one has no copies. Raises InputError if either would be empty.
    """
    edge = share * HASHES
    is_held = [text_hash(Path(example.name).name) % HASHES < edge for example in part.examples]
    held = [example for example, own in zip(part.examples, is_held) if own]
    kept = [example for example, own in zip(part.examples, is_held) if not own]
    if not held or not kept:
        found = f"{len(held)} of {len(part)} examples"
        raise InputError(f"{part.config.path}: val_share={share:g} holds out {found}; give probe.val")
    return part.of(kept), part.of(held, copies=replace(part.copies, number=0))


@dataclass(frozen=True)
class Classes:
    ids: list[str]  # what labels hold
    names: list[str]  # for people

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """Of two equal ids the first one's."""
        return {each: number for number, each in reversed(list(enumerate(self.ids)))}

    def number(self, example: Example, *, where: str) -> int:
        """Raises InputError for a label that is none of them."""
        try:
            return self._numbers[example.label]
        except KeyError:
            found = f"{example.name} is {example.label!r}"
            raise InputError(f"{where}: {found}, none of the {len(self.ids)} classes learned") from None


def classes_of(parts: list[Part], *, label: str) -> Classes:
    """The publisher's list, by the card of one of the manifests, else what the examples are labelled with."""
    for part in parts:
        card = card_of(part)
        if card and card.classes and label == "class":
            return Classes(card.class_ids, card.classes)
    there = sorted({example.label for part in parts for example in part.examples})
    if len(there) < 2:
        where = ", ".join(part.config.path for part in parts)
        raise InputError(f"{where}: at least two classes are needed, label {label!r} has only {there[0]!r}")
    return Classes(there, there)


def card_of(part: Part) -> Card | None:
    return read_card(Path(part.config.path)) if part.config.kind is Kind.clips else None
