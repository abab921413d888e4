"""Pixels on their way to the model: resizing (deterministic), augmentation (training), normalisation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor
from torchvision.transforms.v2 import functional as TF


class Resize(str, Enum):
    squash = "squash"  # both sides to the size, the aspect ratio is lost
    center_crop = "center_crop"  # the shorter side to the size, the middle kept


@dataclass
class Preprocessing:
    """How frames become the model's input; stored in every checkpoint. Defaults: mean and std of CLIP."""

    resize: Resize = Resize.center_crop
    mean: list[float] = field(default_factory=lambda: [0.4815, 0.4578, 0.4082])
    std: list[float] = field(default_factory=lambda: [0.2686, 0.2613, 0.2758])

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ValueError(f"mean and std must be three numbers each, got {self.mean} and {self.std}")

    def resized(self, frames: Tensor, *, size: int, position: float = 0.5) -> Tensor:
        """uint8 't c h w' of any size -> uint8 't c size size' (bicubic, antialiased).

        position: of the crop along the longer side, from 0 (left or top) to 1; squashing has none.
        """
        if self.resize is Resize.center_crop:
            frames = _square(frames, position)
        if tuple(frames.shape[-2:]) == (size, size):
            return frames
        return TF.resize(frames, [size, size], interpolation=TF.InterpolationMode.BICUBIC, antialias=True)

    def normalised(self, frames: Tensor) -> Tensor:
        """uint8 or float 0..255 '... c h w' -> float, the channels' mean and std taken out."""
        mean, std = (torch.tensor(x, device=frames.device).view(3, 1, 1) * 255 for x in (self.mean, self.std))
        return (frames - mean) / std


def _square(frames: Tensor, position: float) -> Tensor:
    """The largest square of '... h w', `position` of the way along the longer side."""
    height, width = frames.shape[-2:]
    side = min(height, width)
    if position == 0.5:
        return TF.center_crop(frames, side)
    return TF.crop(frames, round((height - side) * position), round((width - side) * position), side, side)


@dataclass
class Augmentation:
    """Random geometry and colour, alike for all frames of a clip, drawn anew for each clip."""

    degrees: float = 0.0  # rotation, at most
    min_scale: float = 1.0  # zoom, between these two
    max_scale: float = 1.0
    shift: float = 0.0  # translation at most, as a share of the side
    flip: float = 0.0  # probability of a mirror image
    color: float = 0.0  # strength of the change of brightness, contrast and colour balance
    gray: float = 0.0  # probability of losing all colour

    def __call__(
        self,
        frames: Tensor,
        *,
        size: int,
        generator: torch.Generator,
        rows: Sequence[int] | None = None,
        num_rows: int | None = None,
    ) -> Tensor:
        """uint8 'b t c h w' -> float 0..255 'b t c size size'.

        rows: where these clips are in a batch of num_rows, of which each process has a share: a clip is then
        augmented alike whichever process has it.
        """
        chance = _Chance(generator, list(rows or range(len(frames))), num_rows or len(frames))
        out = self._moved(frames.float(), size=size, chance=chance)
        return self._recolored(out, chance=chance).clamp_(0, 255)

    def _moved(self, frames: Tensor, *, size: int, chance: "_Chance") -> Tensor:
        b, t = frames.shape[:2]
        draw = chance.between
        angle = draw(-self.degrees, self.degrees).deg2rad()
        zoom = 1 / draw(self.min_scale, self.max_scale)
        mirror = torch.where(draw(0, 1) < self.flip, -1.0, 1.0)
        cos, sin = angle.cos() * zoom, angle.sin() * zoom
        shift_x, shift_y = draw(-2 * self.shift, 2 * self.shift), draw(-2 * self.shift, 2 * self.shift)
        rows = [cos * mirror, -sin, shift_x, sin * mirror, cos, shift_y]
        theta = repeat(torch.stack(rows, dim=1), "b (two three) -> (b t) two three", two=2, t=t)
        grid = F.affine_grid(theta.to(frames.device), [b * t, 3, size, size], align_corners=False)
        flat = rearrange(frames, "b t c h w -> (b t) c h w")
        moved = F.grid_sample(flat, grid, padding_mode="border", align_corners=False)
        return rearrange(moved, "(b t) c h w -> b t c h w", b=b)

    def _recolored(self, frames: Tensor, *, chance: "_Chance") -> Tensor:
        """Per clip a random 3 x 3 mixing of the channels near identity and an offset."""
        b = len(frames)
        draw = chance.between
        identity, gray = torch.eye(3), torch.full((3, 3), 1 / 3)
        is_gray, saturation = draw(0, 1) < self.gray, draw(1 - self.color, 1 + self.color)
        saturation = torch.where(is_gray, 0.0, saturation).view(b, 1, 1)
        mixing = saturation * identity + (1 - saturation) * gray
        noise = self.color * (chance.rand(3, 3) - 0.5) / 2 * (saturation != 0)
        contrast = draw(1 - self.color, 1 + self.color).view(b, 1, 1)
        offset = 64 * draw(-self.color, self.color)
        mixing = ((mixing + noise) * contrast).to(frames.device)
        # White stays white before the offset: the pictures' background is no clue to the colour change.
        out = 255 - torch.einsum("bij,btjhw->btihw", mixing, 255 - frames)
        return out + offset.view(b, 1, 1, 1, 1).to(frames.device)


@dataclass
class _Chance:
    """Numbers for some rows of a batch, drawn for all of it."""

    generator: torch.Generator
    rows: list[int]
    num_rows: int

    def rand(self, *shape: int) -> Tensor:
        """Between 0 and 1: 'rows ...'."""
        return torch.rand(self.num_rows, *shape, generator=self.generator)[self.rows]

    def between(self, low: float, high: float) -> Tensor:
        """'rows'."""
        return low + (high - low) * self.rand()
