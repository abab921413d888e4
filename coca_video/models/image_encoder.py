"""The ViT that encodes frames (CoCa, section 3.2)."""

from dataclasses import dataclass
from enum import Enum

import torch
from einops import repeat
from torch import Tensor, nn

from coca_video.errors import InputError
from coca_video.layers.patches import PatchEmbedding, Stem
from coca_video.layers.positions import SpacePositions
from coca_video.layers.transformer import Block, init_linears
from coca_video.models.token_merging import encode_merging


class ImageStyle(str, Enum):
    coca = "coca"  # patches alone, a norm behind the blocks
    clip = "clip"  # a class token before the patches, the norm before the blocks, no bias in the patches


@dataclass
class ImageEncoderConfig:
    image_size: int = 288  # pixels, square
    patch_size: int = 18  # pixels
    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_width: int = 3072
    style: ImageStyle = ImageStyle.coca
    stem: Stem = Stem.patch
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.patch_size < 1 or self.image_size % self.patch_size:
            allowed = f"a multiple of patch_size {self.patch_size}"
            raise ValueError(f"image_size must be {allowed}, got {self.image_size}")

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2

    @property
    def num_class_tokens(self) -> int:
        """Tokens that stand before the patches."""
        return 1 if self.style is ImageStyle.clip else 0


class ImageEncoder(nn.Module):
    """Pixels 'b c h w' -> tokens 'b n d': the patches, behind a class token in the style of CLIP.

    Two attributes trade accuracy for speed, and are of a run, not of the model: `patch_dropout`, the share of
    patches that training leaves out, and `merged_per_block`, how many patches each block merges.
    """

    def __init__(self, config: ImageEncoderConfig):
        super().__init__()
        self.patch_dropout = 0.0
        is_clip = config.style is ImageStyle.clip
        self.patches = PatchEmbedding(
            config.width, patch_size=config.patch_size, stem=config.stem, bias=not is_clip
        )
        self.positions = SpacePositions(config.num_patches, config.width)
        if is_clip:
            self.class_token = nn.Parameter(torch.randn(config.width) * 0.02)
            self.class_position = nn.Parameter(torch.randn(config.width) * 0.02)
        self.num_class_tokens = config.num_class_tokens
        self.norm_first = nn.LayerNorm(config.width) if is_clip else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(config.width, config.num_heads, config.mlp_width, dropout=config.dropout)
            for _ in range(config.num_layers)
        )
        self.norm = nn.Identity() if is_clip else nn.LayerNorm(config.width)
        self.merged_per_block = 0
        init_linears(self)

    @property
    def merged_per_block(self) -> int:
        return self._merged_per_block

    @merged_per_block.setter
    def merged_per_block(self, number: int) -> None:
        """Raises InputError for more than half of a picture's patches, which no block could merge."""
        num_patches = len(self.positions.table)
        if not 0 <= number <= num_patches // 2:
            allowed = f"from 0 to half of a picture's {num_patches} patches"
            raise InputError(f"merged_per_block must be {allowed}, got {number}")
        self._merged_per_block = number

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: 'b c h w', normalised; returns 'b n d'."""
        tokens = self.embed(pixels)
        if not self.merged_per_block:
            return self.encode(tokens)
        counts = {"merged_per_block": self.merged_per_block, "num_class_tokens": self.num_class_tokens}
        return self.norm(encode_merging(self.blocks, tokens, **counts))

    def embed(self, pixels: Tensor) -> Tensor:
        """'b c h w' -> the tokens 'b n d' before the first block; other sizes resize the positions.

        In training, patch dropout leaves fewer of them.
        Raises ValueError for a picture that is not square: the number of patches alone would not tell.
        """
        height, width = pixels.shape[-2:]
        if height != width:
            raise ValueError(f"pixels must be square, got {height} x {width}")
        x = self.positions(self.patches(pixels))
        if self.training and self.patch_dropout:
            x = drop_patches(x, self.patch_dropout)
        if self.num_class_tokens:
            first = repeat(self.class_token + self.class_position, "d -> b 1 d", b=len(x))
            x = torch.cat([first, x], dim=1)
        return self.norm_first(x)

    def encode(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """The blocks over tokens 'b n d', of one frame or of several; mask: bool 'b n'.

        Raises InputError where tokens are to be merged: only those of a frame encoded alone can be.
        """
        if self.merged_per_block:
            reason = "the joint adaptor encodes a clip's frames together"
            raise InputError(f"merged_per_block must be 0, got {self.merged_per_block}: {reason}")
        for block in self.blocks:
            tokens = block(tokens, mask=mask)
        return self.norm(tokens)


def drop_patches(patches: Tensor, share: float) -> Tensor:
    """'b n d' -> a random round((1 - share) n) of each row, at least one (FLIP, arXiv 2212.00794).

    Raises ValueError for a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f"patch_dropout must be in [0, 1), got {share}")
    b, n, _ = patches.shape
    order = torch.rand(b, n, device=patches.device).argsort(dim=1)
    kept = order[:, : max(1, round((1 - share) * n))]
    return patches.take_along_dim(kept.unsqueeze(-1), dim=1)
