"""Token merging (ToMe, arXiv 2210.09461): in each block, the patches that are most alike become one.

Later blocks have less work, at some cost in accuracy; no training is needed. A token's size is how many
patches it stands for: attention counts it so many times, so that merging equal tokens loses nothing.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor

from coca_video.layers.transformer import Block


def encode_merging(
    blocks: Iterable[Block], tokens: Tensor, *, merged_per_block: int, num_class_tokens: int
) -> Tensor:
    """Frames' tokens 'b n d' through the blocks; those that are left, in their order.

    Each block merges `merged_per_block` patches between its attention and its MLP, or half of them where
    fewer would be left; class tokens, which come first, never.
    """
    sizes = tokens.new_ones(tokens.shape[:2])
    for block in blocks:
        normed = block.norm_self(tokens)
        keys_values = block.self_attention.keys_values(normed)
        read = block.self_attention.read(normed, keys_values, key_counts=sizes)
        tokens = tokens + block.dropout(read)
        num_merged = min(merged_per_block, (tokens.shape[1] - num_class_tokens) // 2)
        if num_merged:
            keys = keys_values.k.mean(dim=2)  # over the heads
            places = merged_places(keys, num_merged=num_merged, num_class_tokens=num_class_tokens)
            tokens, sizes = merge(tokens, sizes, places, num_left=tokens.shape[1] - num_merged)
        tokens = tokens + block.dropout(block.mlp(block.norm_mlp(tokens)))
    return tokens


def merged_places(keys: Tensor, *, num_merged: int, num_class_tokens: int = 0) -> Tensor:
    """Bipartite soft matching of 'b n d': each token's place 'b n' among the n - num_merged that are left.

    Patches alternate between two sets. Each of the first has its nearest in the second, by the cosine; the
    `num_merged` nearest pairs share the place of the second. Of equals, the first is taken.
    """
    own = torch.arange(keys.shape[1], device=keys.device).expand(len(keys), -1)
    sources, targets = own[:, num_class_tokens::2], own[:, num_class_tokens + 1 :: 2]
    units = F.normalize(keys[:, num_class_tokens:], dim=-1)
    similarity, nearest = (units[:, ::2] @ units[:, 1::2].mT).max(dim=-1)
    chosen = similarity.argsort(dim=-1, descending=True, stable=True)[:, :num_merged]
    merged_into = targets.gather(1, nearest.gather(1, chosen))
    stands_for = own.scatter(1, sources.gather(1, chosen), merged_into)
    places = (stands_for == own).cumsum(dim=1) - 1  # of those that are left
    return places.gather(1, stands_for)


def merge(tokens: Tensor, sizes: Tensor, places: Tensor, *, num_left: int) -> tuple[Tensor, Tensor]:
    """Those of the tokens 'b n d' that share a place become their mean, weighted by their sizes 'b n'."""
    b, _, d = tokens.shape
    totals = sizes.new_zeros(b, num_left).scatter_add(1, places, sizes)
    weighted = tokens * sizes.unsqueeze(-1)
    sums = tokens.new_zeros(b, num_left, d).scatter_add(1, repeat(places, "b n -> b n d", d=d), weighted)
    return sums / totals.unsqueeze(-1), totals
