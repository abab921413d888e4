"""What an evaluation reads of its records, by a function for other processes: they need no model."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from coca_video.data.manifest import ClipRecord
from coca_video.data.token_cache import TokenCache
from coca_video.data.transforms import Preprocessing
from coca_video.data.views import ViewsConfig, record_origin, record_views
from coca_video.errors import InputError

MIDDLE = 0.5  # a crop's position
# Frames uint8 't c h w' of any size, and a crop's position (see Preprocessing.resized) -> 't ...'.
Prepare = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Resized:
    """Frames at a model's size."""

    preprocessing: Preprocessing
    size: int  # pixels

    def __call__(self, frames: Tensor, position: float) -> Tensor:
        return self.preprocessing.resized(frames, size=self.size, position=position)


@dataclass(frozen=True)
class Transformed:
    """Each frame through another package's transform, as a picture: float 't c h w', 4 bytes a value."""

    transform: Callable[[Image.Image], Tensor]

    def __call__(self, frames: Tensor, position: float) -> Tensor:
        if position != MIDDLE:
            why = "a model with a transform of its own crops as that does"
            raise InputError(f"evaluate.views.num_crops must be 1: {why}")
        rows = rearrange(frames, "t c h w -> t h w c").contiguous().numpy()
        return torch.stack([self.transform(Image.fromarray(row)) for row in rows])


@dataclass
class Example:
    views: list[Tensor]  # 't ...' each, as `Examples.prepare` makes them; or cached tokens 't n d'
    origin: dict[str, Any] | None = None  # what the view's tokens are to be kept under, once they are known


@dataclass
class Examples:
    records: list[ClipRecord]
    views: ViewsConfig
    prepare: Prepare
    shorter_side: int | None = None  # see VideoReader
    cache: TokenCache | None = None  # for a single view

    def load(self, index: int) -> Example:
        """Raises InputError, naming the file, for a record that cannot be read."""
        try:
            return self._load(index)
        except OSError as error:  # no permission, a name too long, a disk that fails
            where = error.filename or self.records[index].path
            raise InputError(f"{where}: {error.strerror or error}") from error

    def _load(self, index: int) -> Example:
        if self.cache is None:
            return Example(self._read(index))
        origin = self._origin(index)
        if origin in self.cache:
            return Example([self.cache.get(origin)])
        return Example(self._read(index), origin)

    def _read(self, index: int) -> list[Tensor]:
        record = self.records[index]
        return record_views(record, self.views, self.prepare, shorter_side=self.shorter_side)

    def _origin(self, index: int) -> dict[str, Any]:
        record = self.records[index]
        if not record.path.exists():
            raise InputError(f"{record.path}: no such file")
        how = {"prepared": repr(self.prepare), "shorter_side": self.shorter_side}
        return record_origin(record) | asdict(self.views) | how


def load_example(examples: Examples, index: int) -> Example:
    """For `workers.run_killable`."""
    return examples.load(index)
