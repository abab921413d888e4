"""The two halves of CoCa's decoder: unimodal layers that read text alone, multimodal ones that also look."""

from dataclasses import dataclass

import torch
from einops import repeat
from torch import Tensor, nn

from coca_video.layers.transformer import Block, init_linears

EMBEDDING_STD = 0.02


@dataclass
class TextDecoderConfig:
    vocab_size: int = 64_000
    context_length: int = 64  # tokens, begin and end included
    width: int = 768
    num_unimodal_layers: int = 12
    num_multimodal_layers: int = 12
    num_heads: int = 12
    mlp_width: int = 3072
    dropout: float = 0.0


class UnimodalDecoder(nn.Module):
    """Causal text layers; a learned [CLS] behind the sentence gathers its embedding (CoCa, section 3.2)."""

    def __init__(self, config: TextDecoderConfig):
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Parameter(torch.randn(config.context_length, config.width) * 0.01)
        self.cls = nn.Parameter(torch.randn(config.width) * 0.02)
        self.blocks = nn.ModuleList(
            Block(config.width, config.num_heads, config.mlp_width, dropout=config.dropout)
            for _ in range(config.num_unimodal_layers)
        )
        self.norm_cls = nn.LayerNorm(config.width)
        init_linears(self)
        nn.init.normal_(self.tokens.weight, std=EMBEDDING_STD)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """ids: 'b l', mask: bool 'b l' (True = real) -> text features 'b l d', sentence feature 'b d'.

        [CLS] stands at index l and has no position of its own, so that the amount of padding before it
        changes nothing. No text token sees it: it is last and the layers are causal.
        Raises ValueError for a text longer than the context.
        """
        if ids.shape[1] > len(self.positions):
            raise ValueError(f"text must have at most {len(self.positions)} tokens, got {ids.shape[1]}")
        x = self.tokens(ids) + self.positions[: ids.shape[1]]
        x = torch.cat([x, repeat(self.cls, "d -> b 1 d", b=len(ids))], dim=1)
        mask = torch.cat([mask, mask.new_ones(len(ids), 1)], dim=1)
        for block in self.blocks:
            x = block(x, mask=mask, causal=True)
        return x[:, :-1], self.norm_cls(x[:, -1])


class MultimodalDecoder(nn.Module):
    """Causal layers with cross-attention to the caption memory, then the vocabulary's logits."""

    def __init__(self, config: TextDecoderConfig, *, memory_width: int):
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(
                config.width,
                config.num_heads,
                config.mlp_width,
                memory_width=memory_width,
                dropout=config.dropout,
            )
            for _ in range(config.num_multimodal_layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.vocabulary = nn.Linear(config.width, config.vocab_size, bias=False)
        init_linears(self)
        nn.init.normal_(self.vocabulary.weight, std=EMBEDDING_STD)  # the first loss is close to ln v

    def forward(self, text: Tensor, memory: Tensor) -> Tensor:
        """text: 'b l d' from the unimodal layers, memory: 'b q d_memory'; returns logits 'b l v'.

        Needs no text mask: padding comes last, and no token looks ahead.
        """
        for block in self.blocks:
            text = block(text, memory, causal=True)
        return self.vocabulary(self.norm(text))
