"""From pixels to tokens: the plain patch projection of ViT, or a small residual network of convolutions."""

import math
from enum import Enum

import torch
from einops import rearrange
from torch import Tensor, nn

from coca_video.layers.batch_norm import BatchNorm


class Stem(str, Enum):
    patch = "patch"  # one p x p convolution of stride p (ViT, CoCa)
    conv = "conv"  # 3 x 3 convolutions (after Xiao et al. 2021, arXiv 2106.14881): learns from few pictures


class PatchEmbedding(nn.Module):
    """'b c h w' -> 'b n d' with n = (h / patch_size) (w / patch_size).

    bias: of the plain projection; the convolutions of the stem have norms instead.
    """

    def __init__(self, width: int, *, patch_size: int, stem: Stem, bias: bool = True):
        super().__init__()
        self.patch_size = patch_size
        if stem is Stem.patch:
            self.project = nn.Conv2d(3, width, patch_size, stride=patch_size, bias=bias)
        else:
            self.project = _conv_stem(width, patch_size=patch_size)

    def forward(self, pixels: Tensor) -> Tensor:
        """Raises ValueError for sides that are no multiple of patch_size."""
        height, width = pixels.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"sides must be multiples of {self.patch_size}, got {height} x {width}")
        return rearrange(self.project(pixels), "b d h w -> b (h w) d")


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(_convolution(width, width), _convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _conv_stem(width: int, *, patch_size: int) -> nn.Sequential:
    """log2(patch_size) halvings from 32 channels up to `width`, all but the first with a residual pair."""
    num_halvings = int(math.log2(patch_size))
    if 2**num_halvings != patch_size:
        raise ValueError(f"the conv stem needs a patch_size that is a power of 2, got {patch_size}")
    widths = [3, *(min(32 * 2**i, width) for i in range(num_halvings - 1)), width]
    layers: list[nn.Module] = []
    for before, after in zip(widths, widths[1:]):
        layers.append(_convolution(before, after, stride=2))
        if before != 3:
            layers.append(_Residual(after))
    stem = nn.Sequential(*layers)
    return stem.to(memory_format=torch.channels_last)  # faster on CPUs and tensor cores


def _convolution(before: int, after: int, *, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, BatchNorm(after), nn.GELU())
