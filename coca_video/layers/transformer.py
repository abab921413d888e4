"""The pre-norm transformer block, alone or with cross-attention."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from coca_video.layers.linear import Linear
from coca_video.ops.attention import attend, attention_weights


class KeyValues(NamedTuple):
    k: Tensor  # 'b s heads d'
    v: Tensor  # 'b s heads d'


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
        self.query = Linear(width, width)
        self.key = Linear(memory_width or width, width)
        self.value = Linear(memory_width or width, width)
        self.out = Linear(width, width)

    def forward(
        self, x: Tensor, memory: Tensor | None = None, *, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """x: 'b l d', memory: 'b s d_memory', mask: bool 'b s' or 'b l s'; returns 'b l d'."""
        return self.read(x, self.keys_values(x if memory is None else memory), mask=mask, causal=causal)

    def keys_values(self, memory: Tensor) -> KeyValues:
        """'b s d_memory' -> keys and values 'b s heads d', which `read` can use again and again."""
        return KeyValues(self._split(self.key(memory)), self._split(self.value(memory)))

    def read(
        self, x: Tensor, memory: KeyValues, *, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """x: 'b l d', mask: bool 'b s' or 'b l s'; returns 'b l d'."""
        out = attend(self._split(self.query(x)), *memory, mask=mask, causal=causal)
        return self.out(rearrange(out, "b l heads d -> b l (heads d)"))

    def weights(self, x: Tensor, memory: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """How much each query of x 'b l d' reads from each token of memory: 'b heads l s', rows sum to 1."""
        q, k = self._split(self.query(x)), self._split(self.key(memory))
        return attention_weights(q, k, mask=mask)

    def _split(self, x: Tensor) -> Tensor:
        return rearrange(x, "b l (heads d) -> b l heads d", heads=self.num_heads)


class Mlp(nn.Module):
    """Two linear layers around a GELU: 'b l d' -> 'b l d'."""

    def __init__(self, width: int, mlp_width: int):
        super().__init__()
        self.hidden = Linear(width, mlp_width)
        self.out = Linear(mlp_width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.gelu(self.hidden(x)))


@dataclass
class BlockCache:
    """What a block keeps between the steps of decoding r = (b k) texts, k for each of b clips.

    It has a fixed size, so that a step has static shapes: s is the longest text that will be written.
    """

    own: KeyValues | None = None  # 'r s heads d', of the text so far; rows to come hold anything
    memory: KeyValues | None = None  # 'b q heads d', of the caption memory: computed once a clip
    memory_mask: Tensor | None = None  # bool 'b q'


class Block(nn.Module):
    """Self-attention, cross-attention if `memory_width` is given, MLP; each pre-norm with a residual.

    self_attention: False leaves it out. norm_memory: the memory has a norm of its own (open_clip).
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_width: int,
        *,
        memory_width: int | None = None,
        self_attention: bool = True,
        norm_memory: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.self_attention = self.cross_attention = None
        if self_attention:
            self.norm_self = nn.LayerNorm(width)
            self.self_attention = MultiHeadAttention(width, num_heads)
        if memory_width is not None:
            self.norm_cross = nn.LayerNorm(width)
            self.norm_memory = nn.LayerNorm(memory_width) if norm_memory else nn.Identity()
            self.cross_attention = MultiHeadAttention(width, num_heads, memory_width=memory_width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = Mlp(width, mlp_width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        """x: 'b l d', memory: 'b q d_memory'; returns 'b l d'.

        mask: bool 'b l' or 'b l l', of the self-attention; memory_mask: bool 'b q', of the cross-attention.
        """
        if self.self_attention is not None:
            x = x + self.dropout(self.self_attention(self.norm_self(x), mask=mask, causal=causal))
        if self.cross_attention is not None:
            read = self.cross_attention(self.norm_cross(x), self.norm_memory(memory), mask=memory_mask)
            x = x + self.dropout(read)
        return x + self.dropout(self.mlp(self.norm_mlp(x)))

    def read_memory(
        self, memory: Tensor, mask: Tensor | None = None
    ) -> tuple[KeyValues | None, Tensor | None]:
        """memory 'b q d_memory', mask bool 'b q' -> what a BlockCache keeps of them."""
        if self.cross_attention is None:
            return None, None
        return self.cross_attention.keys_values(self.norm_memory(memory)), mask

    def step(self, x: Tensor, cache: BlockCache, places: Tensor) -> Tensor:
        """`forward`, causal, for the next tokens alone: x 'r l d', places int 'l' within the text.

        Writes their keys and values into the cache; all texts of a clip read its memory as one.
        """
        if self.self_attention is not None:
            normed = self.norm_self(x)
            for kept, new in zip(cache.own, self.self_attention.keys_values(normed)):
                kept.index_copy_(1, places, new)
            seen = torch.arange(cache.own.k.shape[1], device=x.device) <= places.unsqueeze(1)
            x = x + self.self_attention.read(normed, cache.own, mask=seen.expand(len(x), -1, -1))
        if self.cross_attention is not None:
            num_texts = len(x) // len(cache.memory.k)
            normed = rearrange(self.norm_cross(x), "(b k) l d -> b (k l) d", k=num_texts)
            read = self.cross_attention.read(normed, cache.memory, mask=cache.memory_mask)
            x = x + rearrange(read, "b (k l) d -> (b k) l d", k=num_texts)
        return x + self.mlp(self.norm_mlp(x))


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
