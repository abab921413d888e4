"""Attentional pooling: a fixed number of learned queries read any number of tokens (CoCa, section 3.2)."""

import torch
from einops import repeat
from torch import Tensor, nn

from coca_video.layers.transformer import MultiHeadAttention, init_linears


class AttentionalPooler(nn.Module):
    """One multi-head attention layer with `num_queries` learned queries; no residual, as in the paper.

    The result does not depend on the order of the tokens, so frames can be flattened into it.
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
        queries = repeat(self.norm_queries(self.queries), "q d -> b q d", b=tokens.shape[0])
        return self.norm_out(self.attention(queries, self.norm_tokens(tokens), mask=mask))
