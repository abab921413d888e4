"""The pre-norm transformer block, alone or with cross-attention."""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from coca_video.ops.attention import attend


class MultiHeadAttention(nn.Module):
    """Multi-head attention from x to `memory` (to itself where there is none).

    memory_width: width of the attended tokens, `width` if None.
    """

    def __init__(self, width: int, num_heads: int, *, memory_width: int | None = None):
        super().__init__()
        if width % num_heads:
            found = f"width {width} and num_heads {num_heads}"
            raise ValueError(f"width must be a multiple of num_heads, got {found}")
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(memory_width or width, width)
        self.value = nn.Linear(memory_width or width, width)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Tensor, memory: Tensor | None = None, *, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """x: 'b l d', memory: 'b s d_memory', mask: bool 'b s' or 'b l s'; returns 'b l d'."""
        memory = x if memory is None else memory
        projected = self.query(x), self.key(memory), self.value(memory)
        q, k, v = (rearrange(y, "b l (heads d) -> b l heads d", heads=self.num_heads) for y in projected)
        out = attend(q, k, v, mask=mask, causal=causal)
        return self.out(rearrange(out, "b l heads d -> b l (heads d)"))


class Mlp(nn.Module):
    """Two linear layers around a GELU: 'b l d' -> 'b l d'."""

    def __init__(self, width: int, mlp_width: int):
        super().__init__()
        self.hidden = nn.Linear(width, mlp_width)
        self.out = nn.Linear(mlp_width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.gelu(self.hidden(x)))


class Block(nn.Module):
    """Self-attention, cross-attention if `memory_width` is given, MLP; each pre-norm with a residual."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_width: int,
        *,
        memory_width: int | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.norm_self = nn.LayerNorm(width)
        self.self_attention = MultiHeadAttention(width, num_heads)
        if memory_width is not None:
            self.norm_cross = nn.LayerNorm(width)
            self.cross_attention = MultiHeadAttention(width, num_heads, memory_width=memory_width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = Mlp(width, mlp_width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, memory: Tensor | None = None, *, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """x: 'b l d', memory: 'b s d_memory'; returns 'b l d'.

        mask: bool 'b l' or 'b l l', of the self-attention.
        """
        x = x + self.dropout(self.self_attention(self.norm_self(x), mask=mask, causal=causal))
        if memory is not None:
            x = x + self.dropout(self.cross_attention(self.norm_cross(x), memory))
        return x + self.dropout(self.mlp(self.norm_mlp(x)))


def init_linears(module: nn.Module) -> None:
    """Orthogonal weights, zero biases: a chain of linear maps then starts as an isometry (arXiv 1312.6120).

    It matters most to the poolers: without residuals, two in cascade are four such maps in a row between the
    encoder and the contrastive loss, and independent normal weights would squeeze most directions to nothing.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.orthogonal_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
