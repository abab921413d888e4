"""Tokens of encoded frames on disk: a frozen image encoder sees each frame once, whatever runs follow.

A sample's tokens are one safetensors file, named by a hash of all that they depend on: the file of the video
and which of its frames, or the picture itself; size and preprocessing; the encoder. Not of the kind of device
nor of the batch that it was encoded in, which change roundings.
"""

import hashlib
import json
import random
from collections.abc import Hashable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from tqdm import tqdm

from coca_video.data.bad_samples import BadSample, reading
from coca_video.data.captions import Record
from coca_video.data.samples import Sample
from coca_video.data.sources import Bucket, Source, filler_of
from coca_video.data.workers import Failure, run_killable
from coca_video.errors import InputError
from coca_video.files import write_whole_bytes


def encoder_hash(encoder: nn.Module, settings: dict[str, Any]) -> str:
    """sha256 of an encoder's weights, with their names and types, and of its settings, in JSON's terms."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, weight in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


class TokenCache:
    """A folder of tokens 't n d', each under an origin (`Source.origin`) and one encoder's hash.

    Several processes may read and write it at once, and a write that is interrupted leaves no entry.
    """

    def __init__(self, folder: Path | str, *, encoder: str):
        self.folder, self.encoder = Path(folder), encoder

    def __contains__(self, origin: dict[str, Any]) -> bool:
        return self._path(origin).exists()

    def get(self, origin: dict[str, Any]) -> Tensor:
        """Bit for bit what was put, on the CPU.

        Raises InputError, naming the file, for one that is missing or damaged: whoever reads has no encoder
        at hand to make it anew, and writes are whole, so that something is wrong with the folder.
        """
        path = self._path(origin)
        try:
            return load_file(path)["tokens"]
        except (OSError, SafetensorError, KeyError) as error:
            hint = "remove it, and the next run makes it anew"
            raise InputError(f"{path}: cannot be read as cached tokens ({error}); {hint}") from error

    def put(self, origin: dict[str, Any], tokens: Tensor) -> None:
        path = self._path(origin)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole_bytes(path, save({"tokens": tokens.cpu().contiguous()}))

    def _path(self, origin: dict[str, Any]) -> Path:
        name = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()
        return self.folder / self.encoder / name[:2] / f"{name}.safetensors"


class CachedSource(Source):
    """A source's samples with tokens in place of frames: nothing is decoded, only texts may be random."""

    def __init__(self, source: Source, cache: TokenCache):
        self.source, self.cache, self.path = source, cache, source.path

    @property
    def sizes(self) -> Sequence[int]:
        return self.source.sizes

    @property
    def problems(self) -> list[BadSample]:
        return self.source.problems

    def record(self, index: int) -> Record:
        return self.source.record(index)

    def key(self, index: int) -> str:
        return self.source.key(index)

    def texts(self) -> Iterator[str]:
        return self.source.texts()

    def length(self, index: int, bucket: Bucket) -> int:
        return self.source.length(index, bucket)

    def sample(self, index: int, rng: random.Random | None) -> Sample:
        name = self.key(index)
        with reading("record", name):
            record = self.record(index)
        with reading("tokens", name):
            tokens = torch.cat([self.cache.get(origin) for origin in self.source.origins(index)])
        return self.source.described(record, rng, name=name, tokens=tokens)

    def filler(self) -> Sample:
        """Zeros of the first tokens' shape."""
        frame = self.cache.get(self.source.origins(0)[0])[0]
        tokens = frame.new_zeros(self.source.captions.num_pictures, *frame.shape)
        return filler_of(self.source.captions, tokens=tokens)


@torch.no_grad()
def encode_source(
    source: Source, cache: TokenCache, encoder: nn.Module, *, batch_size: int, num_workers: int
) -> CachedSource:
    """Puts into the cache what it lacks of a source, and gives the source that reads from it.

    What several samples share, as questions do on one picture, is encoded once.
    encoder: normalised pixels 'b c h w' -> tokens 'b n d'; it is put into eval mode. Batches of `batch_size`
    samples are the same whatever is cached, and encoded whole, so that the tokens are those of an encoding
    without cache. Their order is random: several processes at once share the work.
    """
    encoder.eval()
    device = next(encoder.parameters()).device
    batches = _MissingFrames(source, cache, batch_size=batch_size)
    order = random.Random().sample(range(len(batches)), k=len(batches))
    loaded = _load(batches, order, num_workers=num_workers)
    for batch in tqdm(loaded, total=len(batches), desc=f"encoding into {cache.folder}", unit="batch"):
        if batch:
            origins, frames = zip(*batch)
            pixels = source.preprocessing.normalised(torch.cat(frames).to(device))
            for origin, tokens in zip(origins, encoder(pixels).split([len(clip) for clip in frames])):
                cache.put(origin, tokens)
    return CachedSource(source, cache)


def _load(
    batches: "_MissingFrames", order: list[int], *, num_workers: int
) -> Iterator[list[tuple[dict, Tensor]]]:
    """Read in other processes. What cannot be read is an InputError: a cache lacks nothing."""
    found = run_killable(
        _MissingFrames.__getitem__,
        order,
        context=batches,
        num_workers=num_workers,
        timeout=None,
        look_ahead=2,
    )
    with closing(found):
        for number, batch in found:
            if isinstance(batch, Failure):
                first, last = batches.batches[number][0][0], batches.batches[number][-1][0]
                where = f"{batches.source.path}: samples {first} to {last}: "
                raise InputError(batch.reason if batch.kind == "error" else where + batch.reason)
            yield batch


class _MissingFrames:
    """Item n: origins and frames of what is encoded in batch n; nothing where all of it is cached."""

    def __init__(self, source: Source, cache: TokenCache, *, batch_size: int):
        self.source, self.cache = source, cache
        places: dict[Hashable, tuple[int, int]] = {}  # of what differs: a sample, and which part of it
        for index in range(len(source)):
            for which, identity in enumerate(source.identities(index)):
                places.setdefault(identity, (index, which))
        distinct = list(places.values())
        self.batches = [distinct[i : i + batch_size] for i in range(0, len(distinct), batch_size)]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> list[tuple[dict, Tensor]]:
        places = self.batches[number]
        origins = [self.source.origins(index)[which] for index, which in places]
        if all(origin in self.cache for origin in origins):
            return []
        return [(origin, self.source.part(*place)) for origin, place in zip(origins, places)]
