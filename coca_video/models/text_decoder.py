"""The two halves of CoCa's decoder: unimodal layers that read text alone, multimodal ones that also look."""

import warnings
from dataclasses import dataclass
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coca_video.layers.transformer import Block, BlockCache, init_linears
from coca_video.ops.packing import Packing, until_last

EMBEDDING_STD = 0.02


class TextStyle(str, Enum):
    coca = "coca"  # the paper's
    open_clip = "open_clip"  # its [CLS] has a position and its mask is one off; two MLPs a multimodal layer


@dataclass
class TextDecoderConfig:
    vocab_size: int = 64_000
    context_length: int = 64  # tokens, begin and end included
    width: int = 768
    num_unimodal_layers: int = 12
    num_multimodal_layers: int = 12
    num_heads: int = 12
    mlp_width: int = 3072
    style: TextStyle = TextStyle.coca
    dropout: float = 0.0


@dataclass
class Memory:
    """What captions are written from: the clip, as the multimodal layers see it."""

    tokens: Tensor  # 'b q d'
    mask: Tensor | None = None  # bool 'b q', True = real; None = all

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, clips: slice | Tensor) -> "Memory":
        return Memory(self.tokens[clips], None if self.mask is None else self.mask[clips])

    def to(self, device: torch.device | str) -> "Memory":
        return Memory(self.tokens.to(device), None if self.mask is None else self.mask.to(device))

    @staticmethod
    def cat(parts: list["Memory"]) -> "Memory":
        """Memories of batches of clips as one, padded to the longest."""
        longest = max(part.tokens.shape[1] for part in parts)
        if all(part.mask is None and part.tokens.shape[1] == longest for part in parts):
            return Memory(torch.cat([part.tokens for part in parts]))
        tokens, masks = [], []
        for part in parts:
            mask = part.tokens.new_ones(part.tokens.shape[:2], dtype=torch.bool)
            missing = longest - part.tokens.shape[1]
            tokens.append(F.pad(part.tokens, (0, 0, 0, missing)))
            masks.append(F.pad(mask if part.mask is None else part.mask, (0, missing)))
        return Memory(torch.cat(tokens), torch.cat(masks))


class UnimodalDecoder(nn.Module):
    """Causal text layers; a learned [CLS] behind the sentence gathers its embedding (CoCa, section 3.2)."""

    def __init__(self, config: TextDecoderConfig):
        super().__init__()
        self.context_length = config.context_length
        self.is_open_clip = config.style is TextStyle.open_clip
        self.tokens = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Parameter(torch.randn(config.context_length, config.width) * 0.01)
        self.cls = nn.Parameter(torch.randn(config.width) * 0.02)
        if self.is_open_clip:
            self.cls_position = nn.Parameter(torch.randn(config.width) * 0.01)
        self.blocks = nn.ModuleList(
            Block(config.width, config.num_heads, config.mlp_width, dropout=config.dropout)
            for _ in range(config.num_unimodal_layers)
        )
        self.norm_cls = nn.LayerNorm(config.width)
        init_linears(self)
        nn.init.normal_(self.tokens.weight, std=EMBEDDING_STD)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """ids: 'b l', mask: bool 'b l' (True = real) -> text features 'b l d', sentence feature 'b d'.

        Padding must come last: nothing is computed for it, and its features are zero. [CLS] stands right
        behind the text, where no text token sees it, as the layers are causal.
        A text longer than the context is cut, with a warning.
        """
        ids = self._cut(ids)
        mask = mask[:, : ids.shape[1]]
        x, is_cls = self._with_cls(ids, mask)
        rows = Packing(until_last(is_cls))
        visible = self._visible(is_cls, mask) if self.is_open_clip else None
        x = rows.unpack(self._through_blocks(rows.pack(x), rows, visible))
        sentence = x[torch.arange(len(x), device=x.device), is_cls.int().argmax(dim=1)]
        text = F.pad(x, (0, 0, 0, max(0, ids.shape[1] - x.shape[1])))[:, : ids.shape[1]]
        return text.masked_fill(~mask.unsqueeze(-1), 0.0), self.norm_cls(sentence)

    def features(self, ids: Tensor, packing: Packing | None = None) -> Tensor:
        """ids 'b l' -> text features 'b l d', without the work for [CLS]; padding must come last.

        packing: of the rows that are wanted, which then come packed, 'n d'.
        """
        ids = self._cut(ids)
        x = self.tokens(ids) + self.positions[: ids.shape[1]]
        return self._through_blocks(x if packing is None else packing.pack(x), packing)

    def step(self, ids: Tensor, caches: list[BlockCache], places: Tensor) -> Tensor:
        """`features` of the next tokens alone: ids 'r l' at places int 'l' -> 'r l d'; adds to the caches."""
        x = self.tokens(ids) + self.positions[places]
        for block, cache in zip(self.blocks, caches):
            x = block.step(x, cache, places)
        return x

    def _through_blocks(self, x: Tensor, packing: Packing | None, visible: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x, mask=visible, causal=True, packing=packing)
        return x

    def _with_cls(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings 'b l d' of texts with [CLS] behind them, and where that is, bool 'b l'.

        It has no position that depends on the text's length, and in the style of open_clip, where all texts
        are padded to the context, it stands behind the first pad, of id 0, if there is one.
        """
        lengths, context = until_last(mask).sum(dim=1, keepdim=True), self.context_length
        ends = (lengths + 1).clamp(max=context) if self.is_open_clip else lengths
        num_behind = 2 if self.is_open_clip and ids.shape[1] < context else 1
        ids = F.pad(ids.masked_fill(~mask, 0), (0, num_behind))
        places = torch.arange(ids.shape[1], device=ids.device)
        x = self.tokens(ids) + self.positions[places.clamp(max=context - 1)]
        is_cls = places == ends
        cls = self.cls + self.cls_position if self.is_open_clip else self.cls
        return torch.where(is_cls.unsqueeze(-1), cls, x), is_cls

    def _visible(self, is_cls: Tensor, mask: Tensor) -> Tensor:
        """bool 'b l': the keys that open_clip's weights know, beside the causal order.

        Its mask judges each token by the one before it. So [CLS] sees the first pad, and itself only behind
        a text that fills the context.
        """
        missing = is_cls.shape[1] - 1 - mask.shape[1]
        shifted = F.pad(F.pad(mask, (1, 0), value=True), (0, missing), value=False)
        is_full = until_last(mask).sum(dim=1, keepdim=True) == self.context_length
        return torch.where(is_cls, is_full, shifted)

    def _cut(self, ids: Tensor) -> Tensor:
        if ids.shape[1] > self.context_length:
            # Text and line are constant, so that Python shows it once.
            warnings.warn(f"a text was cut to the model's context of {self.context_length} tokens")
        return ids[:, : self.context_length]


class MultimodalDecoder(nn.Module):
    """Causal layers with cross-attention to the caption memory: from text features to the vocabulary."""

    def __init__(self, config: TextDecoderConfig, *, memory_width: int):
        super().__init__()
        self.blocks = nn.ModuleList()
        sizes = (config.width, config.num_heads, config.mlp_width)
        cross = {"memory_width": memory_width, "dropout": config.dropout}
        for _ in range(config.num_multimodal_layers):
            if config.style is TextStyle.open_clip:
                self.blocks.append(Block(*sizes, dropout=config.dropout))
                self.blocks.append(Block(*sizes, self_attention=False, norm_memory=True, **cross))
            else:
                self.blocks.append(Block(*sizes, **cross))
        self.norm = nn.LayerNorm(config.width)
        init_linears(self)

    def forward(self, text: Tensor, memory: Memory, packing: Packing | None = None) -> Tensor:
        """text: 'b l d' from the unimodal layers; returns 'b l d', normalised.

        Needs no text mask: padding comes last, and no token looks ahead.
        packing: the text is packed, 'n d', and so is the result.
        """
        reading = {"causal": True, "memory_mask": memory.mask, "packing": packing}
        for block in self.blocks:
            text = block(text, memory.tokens, **reading)
        return self.norm(text)

    def step(self, text: Tensor, caches: list[BlockCache], places: Tensor) -> Tensor:
        """`forward` of the next tokens alone: text 'r l d' at places int 'l' -> 'r l d'; fills caches."""
        for block, cache in zip(self.blocks, caches):
            text = block.step(text, cache, places)
        return self.norm(text)
