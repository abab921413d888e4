"""CoCa's two attentional poolers: the caption memory, and one vector for contrast (section 3.2)."""

from enum import Enum

from torch import Tensor, nn

from coca_video.layers.pooler import AttentionalPooler
from coca_video.models.text_decoder import Memory


class PoolerStyle(str, Enum):
    cascade = "cascade"  # the contrastive pooler reads the caption memory (the paper's default)
    parallel = "parallel"  # both read the image tokens
    shared = "shared"  # one pooler, whose first query is the contrastive one (open_clip)


class Poolers(nn.Module):
    """Image tokens 'b n d_image' -> caption memory and summary 'b d'.

    num_queries: of the caption pooler, 0 = none: captions are written from the image tokens themselves.
    Raises ValueError for a shared pooler with fewer than two queries.
    """

    def __init__(self, width: int, num_heads: int, *, image_width: int, num_queries: int, style: PoolerStyle):
        super().__init__()
        if num_queries < 0 or (style is PoolerStyle.shared and num_queries < 2):
            least = 2 if style is PoolerStyle.shared else 0
            raise ValueError(f"num_caption_queries must be at least {least}, got {num_queries}")
        self.style = style
        self.memory_width = width if num_queries else image_width
        self.caption = self.contrastive = None
        if num_queries:
            self.caption = AttentionalPooler(
                width, num_heads, num_queries=num_queries, memory_width=image_width
            )
        if style is not PoolerStyle.shared:
            read = self.memory_width if style is PoolerStyle.cascade else image_width
            self.contrastive = AttentionalPooler(width, num_heads, num_queries=1, memory_width=read)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> tuple[Memory, Tensor]:
        """tokens: 'b n d_image', mask: bool 'b n' -> the caption memory and the summary 'b d'."""
        if self.caption is None:
            return Memory(tokens, mask), self.contrastive(tokens, mask=mask)[:, 0]
        return self.combined([pooler(tokens, mask=mask) for pooler in self.readers])

    @property
    def readers(self) -> list[AttentionalPooler]:
        """The poolers that read image tokens: in a cascade, the contrastive one reads the caption memory."""
        poolers = [self.caption, self.contrastive if self.style is PoolerStyle.parallel else None]
        return [pooler for pooler in poolers if pooler is not None]

    def combined(self, read: list[Tensor]) -> tuple[Memory, Tensor]:
        """What the readers, the caption pooler first, made 'b q d' -> caption memory and summary 'b d'."""
        memory, *rest = read
        if self.style is PoolerStyle.shared:
            return Memory(memory[:, 1:]), memory[:, 0]
        summary = rest[0] if rest else self.contrastive(memory, mask=None)
        return Memory(memory), summary[:, 0]
