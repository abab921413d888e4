"""The frozen encoder's tokens of examples: encoded once, kept on disk, read as often as a probe learns."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn
from tqdm import tqdm

from coca_video.data.samples import pad_frames
from coca_video.data.token_cache import TokenCache
from coca_video.data.workers import Failure, run_killable
from coca_video.errors import InputError
from coca_video.models.adaptors import masked_mean
from coca_video.models.coca import CoCa
from coca_video.probes.examples import Classes, Example, Part

ITEMS_AT_ONCE = 128  # where nothing is learned of them


class Features(str, Enum):
    """What is made of an item for a probe without a pooler of its own."""

    embedding = "embedding"  # the model's unit embedding of the clip
    tokens = "tokens"  # the mean of the image encoder's tokens


@dataclass
class ReadingConfig:
    """How examples come from the disk and through the encoder."""

    num_workers: int = 2  # processes that decode; 0: this one, which a bad video can hang or end
    timeout: float = 120.0  # seconds after which a video counts as not readable
    frames_at_once: int = 256  # that the encoder is given, at least; a clip is never split
    reduced_decoding: bool = False  # see data.sources.Clips
    num_token_workers: int = 0  # processes that read cached tokens; 0: this one

    def __post_init__(self) -> None:
        if self.num_workers < 0 or self.num_token_workers < 0:
            found = f"{self.num_workers} and {self.num_token_workers}"
            raise ValueError(f"num_workers and num_token_workers must not be negative, got {found}")
        if self.timeout <= 0 or self.frames_at_once < 1:
            found = f"{self.timeout} and {self.frames_at_once}"
            raise ValueError(f"timeout and frames_at_once must be positive, got {found}")


@dataclass
class Failed:
    """An example that could not be read: counted, never replaced."""

    example: Example
    kind: str  # error, timeout, crash
    reason: str


@dataclass
class Inputs:
    """Of some items."""

    content: Tensor  # tokens 'b n d', or features 'b d'
    labels: Tensor  # int64 'b'
    mask: Tensor | None = None  # bool 'b n', True = real; None: all are

    def to(self, device: torch.device) -> "Inputs":
        mask = None if self.mask is None else self.mask.to(device)
        return Inputs(self.content.to(device), self.labels.to(device), mask)


@torch.no_grad()
def encode_part(
    part: Part, cache: TokenCache, encoder: nn.Module, *, config: ReadingConfig
) -> tuple[Part, list[Failed]]:
    """Puts into the cache what it lacks of a part; gives the part without what cannot be read.

    encoder: normalised pixels 'b c h w' -> tokens 'b n d'.
    Raises InputError if not one example can be read.
    """
    encoder.eval()
    failed: dict[int, Failed] = {}
    waiting: list[tuple[dict[str, Any], Tensor]] = []
    for number, found in _loaded(part, cache, config):
        if isinstance(found, Failure):
            failed[number] = Failed(part.examples[number], found.kind, found.reason)
            continue
        waiting += found
        if sum(len(frames) for _, frames in waiting) >= config.frames_at_once:
            _encode(waiting, cache, encoder, part)
            waiting = []
    _encode(waiting, cache, encoder, part)
    readable = [example for number, example in enumerate(part.examples) if number not in failed]
    if not readable:
        first = next(iter(failed.values())).reason
        raise InputError(f"{part.config.path}: not one of {len(part)} examples could be read: {first}")
    return part.of(readable), list(failed.values())


def _loaded(
    part: Part, cache: TokenCache, config: ReadingConfig
) -> Iterator[tuple[int, list[tuple[dict[str, Any], Tensor]] | Failure]]:
    """Of each example what the cache lacks: the origins and frames of items."""
    found = run_killable(
        _missing,
        range(len(part)),
        context=(part, cache),
        num_workers=config.num_workers,
        timeout=config.timeout,
    )
    with closing(found), tqdm(total=len(part), desc=f"tokens of {part.config.path}", unit="example") as bar:
        for each in found:
            yield each
            bar.update()


def _missing(context: tuple[Part, TokenCache], number: int) -> list[tuple[dict[str, Any], Tensor]]:
    part, cache = context
    try:
        origins = part.origins(number)
        items = [item for item, origin in enumerate(origins) if origin not in cache]
        frames = part.frames(number, items) if items else []
    except OSError as error:  # a file that is gone
        raise InputError(f"{error.filename or part.examples[number].path}: {error.strerror}") from error
    return [(origins[item], each) for item, each in zip(items, frames)]


def _encode(
    waiting: list[tuple[dict[str, Any], Tensor]], cache: TokenCache, encoder: nn.Module, part: Part
) -> None:
    if not waiting:
        return
    device = next(encoder.parameters()).device
    frames = torch.cat([part.source.preprocessing.normalised(each.to(device)) for _, each in waiting])
    for (origin, each), tokens in zip(waiting, encoder(frames).split([len(each) for _, each in waiting])):
        cache.put(origin, tokens)


class Tokens:
    """The cached tokens of parts: an item is a view, or a copy of one, of an example.

    Raises InputError for an example whose class is unknown.
    """

    def __init__(self, parts: list[Part], cache: TokenCache, classes: Classes):
        self.parts, self.cache = parts, cache
        self._starts = list(accumulate((len(part) * part.num_items for part in parts), initial=0))
        labels = [
            classes.number(example, where=part.config.path) for part in parts for example in part.examples
        ]
        repeats = [part.num_items for part in parts for _ in part.examples]
        self.labels = torch.tensor(labels).repeat_interleave(torch.tensor(repeats))

    def __len__(self) -> int:
        return self._starts[-1]

    def read(self, items: list[int]) -> Inputs:
        tokens, mask = self.clips(items)
        flat = rearrange(tokens, "b t n d -> b (t n) d")
        of_tokens = None if mask.all() else repeat(mask, "b t -> b (t n)", n=tokens.shape[2])
        return Inputs(flat, self.labels[items], of_tokens)

    def clips(self, items: list[int]) -> tuple[Tensor, Tensor]:
        """Tokens 'b t n d', zeros behind shorter clips, and their frame mask bool 'b t'."""
        return pad_frames([self._clip(item) for item in items])

    def _clip(self, item: int) -> Tensor:
        which = bisect_right(self._starts, item) - 1
        part = self.parts[which]
        number, of_example = divmod(item - self._starts[which], part.num_items)
        return self.cache.get(part.origins(number)[of_example])


@dataclass
class Vectors:
    """Features of items in memory."""

    content: Tensor  # 'items d'
    labels: Tensor  # int64 'items'

    def __len__(self) -> int:
        return len(self.content)

    def read(self, items: list[int]) -> Inputs:
        return Inputs(self.content[items], self.labels[items])


Items = Tokens | Vectors


@torch.inference_mode()
def pooled(tokens: Tokens, model: CoCa, features: Features, *, config: ReadingConfig) -> Vectors:
    """One pass over the tokens; the model is on its device, the features are on the CPU."""
    device = next(model.parameters()).device
    rows = []
    for clips, mask in _read_all(_clips, tokens, in_order(len(tokens)), config):
        clips, mask = clips.to(device), mask.to(device)
        if features is Features.embedding:
            rows.append(model.pool(clips, mask)[1].cpu())
        else:
            rows.append(masked_mean(clips.mean(dim=2), mask).cpu())
    return Vectors(torch.cat(rows).clone(), tokens.labels)


def in_order(length: int) -> Iterator[list[int]]:
    """All items in batches."""
    for start in range(0, length, ITEMS_AT_ONCE):
        yield list(range(start, min(start + ITEMS_AT_ONCE, length)))


def read_batches(items: Items, batches: Iterable[list[int]], *, config: ReadingConfig) -> Iterator[Inputs]:
    """The items of each batch; cached tokens are read ahead by other processes, if there are any."""
    if isinstance(items, Vectors):
        yield from map(items.read, batches)
        return
    yield from _read_all(_inputs, items, batches, config)


def _read_all(
    function: Callable[[Tokens, list[int]], Any],
    tokens: Tokens,
    batches: Iterable[list[int]],
    config: ReadingConfig,
) -> Iterator[Any]:
    found = run_killable(
        function,
        batches,
        context=tokens,
        num_workers=config.num_token_workers,
        timeout=None,
        look_ahead=2,
    )
    with closing(found):
        for _, each in found:
            if isinstance(each, Failure):
                raise InputError(each.reason)
            yield each


def _clips(tokens: Tokens, items: list[int]) -> tuple[Tensor, Tensor]:
    return tokens.clips(items)


def _inputs(tokens: Tokens, items: list[int]) -> Inputs:
    return tokens.read(items)


def normalised(features: Tensor) -> Tensor:
    return F.normalize(features, dim=-1)
