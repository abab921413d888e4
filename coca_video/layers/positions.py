"""Learned positions in space and time, and their resizing."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class SpacePositions(nn.Module):
    """A learned vector for each patch of a square grid: 'b n d' -> 'b n d'."""

    def __init__(self, num_patches: int, width: int):
        super().__init__()
        self.table = nn.Parameter(torch.randn(num_patches, width) * 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + resize_grid(self.table, num_patches=tokens.shape[1])


class TimePositions(nn.Module):
    """Learned vectors over a clip's length, zero at the start, so that a picture's checkpoint is unchanged.

    The table is stretched linearly over the clip's real frames, however many: a row is a time relative to
    the clip's length, and clips may be longer or shorter than those trained on. A clip of one frame is a
    picture, which has no time. Padding changes neither.
    """

    def __init__(self, num_frames: int, width: int):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(num_frames, width))

    def forward(self, tokens: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """tokens: 'b t n d', frame_mask: bool 'b t' (True = real, None = all); returns 'b t n d'."""
        if frame_mask is None:
            frame_mask = tokens.new_ones(tokens.shape[:2], dtype=torch.bool)
        last, num_real = len(self.table) - 1, frame_mask.sum(dim=1, keepdim=True)
        index = torch.arange(tokens.shape[1], device=tokens.device).float()
        place = ((index + 0.5) * len(self.table) / num_real.clamp(min=1) - 0.5).clamp(0, last)
        below = place.long()
        weight = rearrange(place - below, "b t -> b t 1").to(self.table.dtype)
        added = torch.lerp(self.table[below], self.table[(below + 1).clamp(max=last)], weight)
        return tokens + rearrange(added * (num_real > 1).unsqueeze(-1), "b t d -> b t 1 d")


def resize_grid(table: Tensor, *, num_patches: int) -> Tensor:
    """Square grid of positions 'n d' to another square grid, bicubic with antialiasing as open_clip does.

    Raises ValueError where either number is not a square.
    """
    if len(table) == num_patches:
        return table
    old, new = math.isqrt(len(table)), math.isqrt(num_patches)
    if old**2 != len(table) or new**2 != num_patches:
        raise ValueError(f"positions resize between square grids, got {len(table)} and {num_patches} patches")
    grid = rearrange(table, "(h w) d -> 1 d h w", h=old)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", antialias=True, align_corners=False)
    return rearrange(grid, "1 d h w -> (h w) d")
