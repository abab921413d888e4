"""Tokens of encoded frames on disk: a frozen image encoder sees each frame once, whatever runs follow.

A sample's tokens are one safetensors file, named by a hash of all that they depend on: the file of the video
and which of its frames, or the picture itself; size and preprocessing; the encoder. Not of the kind of device
nor of the batch that it was encoded in, which change roundings.
"""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from coca_video.data.loader import Source, load_items, one_text
from coca_video.data.samples import Sample
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
        self.source, self.cache = source, cache
        self.records = source.records

    def sample(self, index: int, rng: random.Random | None) -> Sample:
        record = self.records[index]
        tokens = self.cache.get(self.source.origin(index))
        return Sample(None, one_text(record, rng), self.source.key(index), record.labels, tokens=tokens)


@torch.no_grad()
def encode_source(
    source: Source, cache: TokenCache, encoder: nn.Module, *, batch_size: int, num_workers: int
) -> CachedSource:
    """Puts into the cache what it lacks of a source, and gives the source that reads from it.

    encoder: normalised pixels 'b c h w' -> tokens 'b n d'; it is put into eval mode. Batches of `batch_size`
    samples are the same whatever is cached, and encoded whole, so that the tokens are those of an encoding
    without cache. Their order is random: several processes at once share the work.
    """
    encoder.eval()
    device = next(encoder.parameters()).device
    batches = _MissingFrames(source, cache, batch_size=batch_size)
    order = random.Random().sample(range(len(batches)), k=len(batches))
    loaded = load_items(batches, order, num_workers=num_workers)
    for batch in tqdm(loaded, total=len(batches), desc=f"encoding into {cache.folder}", unit="batch"):
        if batch:
            origins, frames = zip(*batch)
            pixels = source.preprocessing.normalised(torch.cat(frames).to(device))
            for origin, tokens in zip(origins, encoder(pixels).split([len(clip) for clip in frames])):
                cache.put(origin, tokens)
    return CachedSource(source, cache)


class _MissingFrames(Dataset[list[tuple[dict, Tensor]]]):
    """Item n: the origin and the frames of each sample of batch n; nothing where all of them are cached."""

    def __init__(self, source: Source, cache: TokenCache, *, batch_size: int):
        self.source, self.cache = source, cache
        self.batches = [range(len(source))[i : i + batch_size] for i in range(0, len(source), batch_size)]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> list[tuple[dict, Tensor]]:
        indices = self.batches[number]
        origins = [self.source.origin(index) for index in indices]
        if all(origin in self.cache for origin in origins):
            return []
        return [(origin, self.source.frames(index, rng=None)) for index, origin in zip(indices, origins)]
