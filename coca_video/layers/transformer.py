"""The pre-norm transformer block, alone or with cross-attention."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from coca_video.layers.linear import Linear
from coca_video.ops.attention import attend, attention_weights
from coca_video.ops.packing import Packing, attend_packed


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
        self,
        x: Tensor,
        memory: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        packing: Packing | None = None,
    ) -> Tensor:
        """x: 'b l d', memory: 'b s d_memory', mask: bool 'b s' or 'b l s'; returns 'b l d'.

        An x of batch 1 is read against every memory: learned queries are projected once.
        packing: x is packed, 'n d', and so is the result; without a memory the attention is then causal.
        """
        if memory is not None:
            return self._read_tokens(x, memory, mask=mask, packing=packing)
        if packing is None:
            return self.read(x, self.keys_values(x), mask=mask, causal=causal)
        out = attend_packed(self._split(self.query(x)), *self.keys_values(x), packing, mask=mask)
        return self.out(out.flatten(-2))

    def keys_values(self, memory: Tensor) -> KeyValues:
        """'... s d_memory' -> keys and values '... s heads d', which `read` can use again and again."""
        return KeyValues(self._split(self.key(memory)), self._split(self.value(memory)))

    def read(
        self,
        x: Tensor,
        memory: KeyValues,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        key_counts: Tensor | None = None,
    ) -> Tensor:
        """x: 'b l d', mask: bool 'b s' or 'b l s', key_counts: 'b s', see `attend`; returns 'b l d'."""
        how = {"mask": mask, "causal": causal, "key_counts": key_counts}
        return self.out(attend(self._split(self.query(x)), *memory, **how).flatten(-2))

    def weights(self, x: Tensor, memory: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """How much each query of x 'b l d' reads from each token of memory: 'b heads l s', rows sum to 1."""
        q, k = self._split(self.query(x)).expand(len(memory), -1, -1, -1), self._split(self.key(memory))
        return attention_weights(q, k, mask=mask)

    def _read_tokens(
        self, x: Tensor, memory: Tensor, *, mask: Tensor | None, packing: Packing | None
    ) -> Tensor:
        q = self._split(self.query(x))
        q = q.expand(len(memory), -1, -1, -1) if packing is None else packing.unpack(q)
        if (mask is None or mask.ndim == 2) and self.absorbs(q.shape[1], memory):
            read = self._attend_absorbed(q, memory, mask=mask)
        else:
            read = attend(q, *self._keys_values_of_real(memory, mask), mask=mask)
        return self.out((read if packing is None else packing.pack(read)).flatten(-2))

    def _keys_values_of_real(self, memory: Tensor, mask: Tensor | None) -> KeyValues:
        """`keys_values`, without the work for what the mask 'b s' hides: zeros there."""
        if mask is None or mask.ndim == 3:
            return self.keys_values(memory)
        missing = memory.shape[1] - (packing := Packing(mask)).mask.shape[1]
        keys_values = (packing.unpack(x) for x in self.keys_values(packing.pack(memory)))
        return KeyValues(*(F.pad(x, (0, 0, 0, 0, 0, missing)) for x in keys_values))

    def absorbs(self, num_queries: int, memory: Tensor) -> bool:
        """Whether it takes fewer multiplications to leave the memory unprojected (`_attend_absorbed`)."""
        num_tokens, memory_width = memory.shape[1:]
        width = self.out.in_features
        projected = num_tokens * width * (memory_width + num_queries)
        absorbed = num_queries * memory_width * (width + self.num_heads * num_tokens)
        return absorbed < projected

    def _attend_absorbed(self, q: Tensor, memory: Tensor, *, mask: Tensor | None) -> Tensor:
        """q 'b l heads d', memory 'b s d_memory' -> 'b l heads d', the same as with keys and values.

        q . (W_k m) = (W_k^T q) . m, and the weighted mean of W_v m is W_v times that of m: for few queries,
        it is they that are projected, and all heads read the memory itself, as one head (as in multi-query
        attention). A key's bias moves all scores of a query alike, which softmax does not see: it takes part
        only so that it has a gradient, which is zero.
        """
        heads, head_width = q.shape[2:]
        into, back = (layer.weight.unflatten(0, (heads, head_width)) for layer in (self.key, self.value))
        q = torch.einsum("blhd,hdm->blhm", q, into) * (memory.shape[-1] / head_width) ** 0.5
        tokens = memory.unsqueeze(2)
        read = attend(rearrange(q, "b l h m -> b (l h) 1 m"), tokens, tokens, mask=mask)
        read = rearrange(read, "b (l h) 1 m -> b l h m", h=heads)
        bias = (self.value.bias + 0 * self.key.bias).unflatten(0, (heads, head_width))
        if mask is not None:  # who sees nothing reads zeros
            bias = bias * mask.any(dim=-1)[:, None, None, None]
        return torch.einsum("blhm,hdm->blhd", read, back) + bias

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1))


class Mlp(nn.Module):
    """Two linear layers around a GELU: 'b l d' -> 'b l d'."""

    def __init__(self, width: int, mlp_width: int):
        super().__init__()
        self.hidden = Linear(width, mlp_width)
        self.out = Linear(mlp_width, width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.hidden(x)
        if not torch.is_grad_enabled():
            return self._activated(hidden)
        # The backward pass applies the GELU once more, and no product: it stops at the result's own input,
        # a quarter of what a block would keep.
        return checkpoint(self._activated, hidden, use_reentrant=False, preserve_rng_state=False)

    def _activated(self, hidden: Tensor) -> Tensor:
        return self.out(F.gelu(hidden))


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

    recompute = False  # the backward pass computes the block once more, of which only the input is kept

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

    def forward(self, x: Tensor, memory: Tensor | None = None, **reading: Any) -> Tensor:
        """x: 'b l d', memory: 'b q d_memory'; returns 'b l d'. For the keywords see `_forward`."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self._forward, x, memory, use_reentrant=False, **reading)
        return self._forward(x, memory, **reading)

    def _forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        memory_mask: Tensor | None = None,
        packing: Packing | None = None,
    ) -> Tensor:
        """mask: bool 'b l' or 'b l l', of the self-attention.

        memory_mask: bool 'b q', of the cross-attention. packing: x is packed, 'n d', and so is the result;
        the self-attention is then causal.
        """
        if self.self_attention is not None:
            own = self.self_attention(self.norm_self(x), mask=mask, causal=causal, packing=packing)
            x = x + self.dropout(own)
        if self.cross_attention is not None:
            memory = self.norm_memory(memory)
            read = self.cross_attention(self.norm_cross(x), memory, mask=memory_mask, packing=packing)
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
