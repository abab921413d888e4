"""Writing captions: pure functions over a callable that scores the next token."""

from collections.abc import Callable

import torch
from torch import Tensor


def greedy(
    next_logits: Callable[[Tensor], Tensor], *, batch_size: int, begin: int, end: int, max_length: int
) -> Tensor:
    """The likeliest token again and again, until every row has ended or has max_length ids, `begin` included.

    next_logits: ids so far 'b l' -> logits of the next token 'b v'.
    Returns ids 'b l', `begin` included; after its `end` a row holds only `end`.
    """
    ids = torch.full((batch_size, 1), begin)
    ended = torch.zeros(batch_size, dtype=torch.bool)
    while ids.shape[1] < max_length and not ended.all():
        chosen = next_logits(ids).argmax(dim=-1).cpu()
        chosen = torch.where(ended, end, chosen)
        ids = torch.cat([ids, chosen.unsqueeze(1)], dim=1)
        ended |= chosen == end
    return ids
