"""Attentional pooling: a fixed number of learned queries read any number of tokens (CoCa, section 3.2)."""

from functools import reduce
from itertools import repeat

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from coca_video.layers.transformer import MultiHeadAttention, init_linears
from coca_video.ops.online_softmax import PartialAttention, partial_attention

MAX_AT_ONCE = 16384  # tokens whose keys and values may all exist at once, for the fast kernels of `attend`
CHUNK = 2048  # tokens read at a time where there are more, or where they stream: their scores exist


class AttentionalPooler(nn.Module):
    """One multi-head attention layer with `num_queries` learned queries; no residual, as in the paper.

    The result does not depend on the order of the tokens, so frames can be flattened into it. Tokens may
    also come in parts: `finish` makes of the merged `read` of each what `forward` makes of all.
    """

    def __init__(self, width: int, num_heads: int, *, num_queries: int, memory_width: int):
        super().__init__()
        if num_queries < 1:
            raise ValueError(f"num_queries must be at least 1, got {num_queries}")
        self.queries = nn.Parameter(torch.randn(num_queries, width))
        self.norm_queries = nn.LayerNorm(width)
        self.norm_tokens = nn.LayerNorm(memory_width)
        self.attention = MultiHeadAttention(width, num_heads, memory_width=memory_width)
        self.norm_out = nn.LayerNorm(width)
        init_linears(self)

    def forward(self, tokens: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """tokens: 'b n d_memory', mask: bool 'b n' (True = real); returns 'b q d'."""
        if tokens.shape[1] > MAX_AT_ONCE:
            return self.finish(self.read(tokens, mask=mask))
        return self.norm_out(self.attention(self._normed_queries(), self.norm_tokens(tokens), mask=mask))

    def weights(self, tokens: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """How much each query reads from each token: 'b heads q n', rows sum to 1."""
        return self.attention.weights(self._normed_queries(), self.norm_tokens(tokens), mask=mask)

    def read(self, tokens: Tensor, *, mask: Tensor | None = None) -> PartialAttention:
        """`forward` for some of the tokens, up to where those of other parts can be merged in.

        Keys and values exist for CHUNK tokens at a time, in the backward pass too.
        """
        q = self.attention.query(self._normed_queries()).unflatten(-1, (self.attention.num_heads, -1))
        masks = repeat(None) if mask is None else mask.split(CHUNK, dim=1)
        parts = (
            checkpoint(self._read_chunk, q, *chunk, use_reentrant=False)
            for chunk in zip(tokens.split(CHUNK, dim=1), masks)
        )
        return reduce(PartialAttention.merge, parts)

    def finish(self, read: PartialAttention) -> Tensor:
        """The merged `read` of all parts -> 'b q d'."""
        return self.norm_out(self.attention.out(read.finish().to(self.queries.dtype).flatten(-2)))

    def _normed_queries(self) -> Tensor:
        """'1 q d'."""
        return self.norm_queries(self.queries).unsqueeze(0)

    def _read_chunk(self, q: Tensor, tokens: Tensor, mask: Tensor | None) -> PartialAttention:
        return partial_attention(q, *self.attention.keys_values(self.norm_tokens(tokens)), mask=mask)
