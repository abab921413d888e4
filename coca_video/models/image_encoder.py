"""The ViT that encodes one frame (CoCa, section 3.2)."""

from dataclasses import dataclass

from torch import Tensor, nn

from coca_video.layers.patches import PatchEmbedding, Stem
from coca_video.layers.positions import SpacePositions
from coca_video.layers.transformer import Block, init_linears


@dataclass
class ImageEncoderConfig:
    image_size: int = 288  # pixels, square
    patch_size: int = 18  # pixels
    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_width: int = 3072
    stem: Stem = Stem.patch
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.patch_size < 1 or self.image_size % self.patch_size:
            allowed = f"a multiple of patch_size {self.patch_size}"
            raise ValueError(f"image_size must be {allowed}, got {self.image_size}")

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2


class ImageEncoder(nn.Module):
    """Pixels 'b c h w' -> tokens 'b n d', without a class token: the poolers summarise."""

    def __init__(self, config: ImageEncoderConfig):
        super().__init__()
        self.patches = PatchEmbedding(config.width, patch_size=config.patch_size, stem=config.stem)
        self.positions = SpacePositions(config.num_patches, config.width)
        self.blocks = nn.ModuleList(
            Block(config.width, config.num_heads, config.mlp_width, dropout=config.dropout)
            for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.width)
        init_linears(self)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: 'b c h w', normalised; returns 'b n d'. Other sizes than image_size resize the positions.

        Raises ValueError for a picture that is not square: the number of patches alone would not tell.
        """
        height, width = pixels.shape[-2:]
        if height != width:
            raise ValueError(f"pixels must be square, got {height} x {width}")
        x = self.positions(self.patches(pixels))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)
