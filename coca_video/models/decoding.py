"""Text, token by token, with everything kept that need not be computed again."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from coca_video.layers.linear import packed_linears
from coca_video.layers.transformer import Block, BlockCache, KeyValues
from coca_video.models.coca import CoCa
from coca_video.models.text_decoder import Memory


def packed_decoders(model: CoCa) -> AbstractContextManager[None]:
    """Within, decoding is fast on a CPU: `packed_linears` for what writes text."""
    return packed_linears(model.unimodal, model.multimodal, model.heads)


class CachedDecoder:
    """Scores the next tokens of r = (b k) texts, k for each of b clips: what `coca_video.generate` calls.

    Both decoders keep their keys and values; those of the caption memory are computed once a clip and shared
    by its k texts. All sizes are fixed from the start, so that `compile` (torch.compile, say) sees one shape
    a step. For one decoding only: it remembers how far the texts have come.
    Raises ValueError for a max_length beyond the model's context.
    """

    def __init__(
        self,
        model: CoCa,
        memory: Memory,
        *,
        texts_per_clip: int,
        max_length: int,
        compile: Callable[[Callable], Callable] | None = None,
    ):
        context = model.config.text.context_length
        if max_length > context:
            raise ValueError(f"max_length must be at most the context, {context}, got {max_length}")
        self.model = model
        self.length = 0  # tokens whose keys and values are kept
        self.read = [block.read_memory(memory.tokens, memory.mask) for block in self._blocks()]
        self.kept = self._room(memory, num_texts=len(memory) * texts_per_clip, max_length=max_length)
        self.spare = torch.empty_like(self.kept) if texts_per_clip > 1 else None
        self.step = compile(self._step) if compile else self._step

    @torch.no_grad()  # the keys and values are written in place
    def __call__(self, ids: Tensor, parents: Tensor | None = None) -> Tensor:
        """ids 'r l', the texts so far -> logits 'r v' of the next token.

        parents: int 'r', the text of the previous call that each one goes on from; None = its own.
        """
        if parents is not None and self.spare is not None:
            torch.index_select(self.kept, 0, parents, out=self.spare)
            self.kept, self.spare = self.spare, self.kept
        places = torch.arange(self.length, ids.shape[1], device=ids.device)
        self.length = ids.shape[1]
        return self.step(ids[:, places], places, self.kept)

    def _step(self, ids: Tensor, places: Tensor, kept: Tensor) -> Tensor:
        own = iter(kept.unbind(1))
        caches = [
            BlockCache(KeyValues(*next(own).unbind(1)) if block.self_attention else None, *read)
            for block, read in zip(self._blocks(), self.read)
        ]
        num_unimodal = len(self.model.unimodal.blocks)
        text = self.model.unimodal.step(ids, caches[:num_unimodal], places)
        text = self.model.multimodal.step(text, caches[num_unimodal:], places)
        return self.model.heads.vocabulary(text[:, -1])

    def _blocks(self) -> list[Block]:
        return [*self.model.unimodal.blocks, *self.model.multimodal.blocks]

    def _room(self, memory: Memory, *, num_texts: int, max_length: int) -> Tensor:
        """'r layers two s heads d' for the keys and values of all self-attention."""
        text = self.model.config.text
        num_layers = text.num_unimodal_layers + text.num_multimodal_layers
        head_width = text.width // text.num_heads
        return memory.tokens.new_zeros(num_texts, num_layers, 2, max_length, text.num_heads, head_width)
