"""Writing captions: pure functions over a callable that scores the next token."""

from collections.abc import Callable

import torch
from einops import rearrange, repeat
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


def beam_search(
    next_logits: Callable[[Tensor], Tensor],
    *,
    batch_size: int,
    begin: int,
    end: int,
    max_length: int,
    num_beams: int,
) -> tuple[Tensor, Tensor]:
    """The likeliest `num_beams` texts found by extending that many at a time.

    next_logits: ids so far '(b k) l', k beams a row -> logits of the next token '(b k) v'.
    Returns ids 'b k l' as `greedy` does, likeliest first, and their log-probabilities 'b k'.
    """
    ids = torch.full((batch_size, num_beams, 1), begin)
    scores = torch.full((batch_size, num_beams), float("-inf"))
    scores[:, 0] = 0.0  # all beams begin alike: only one may be extended
    ended = torch.zeros(batch_size, num_beams, dtype=torch.bool)
    while ids.shape[2] < max_length and not ended.all():
        steps = next_logits(rearrange(ids, "b k l -> (b k) l")).float().log_softmax(dim=-1).cpu()
        steps = rearrange(steps, "(b k) v -> b k v", k=num_beams)
        staying = torch.full_like(steps[0, 0], float("-inf"))
        staying[end] = 0.0  # an ended text stays as it is
        steps = torch.where(ended.unsqueeze(-1), staying, steps)
        totals = rearrange(scores.unsqueeze(-1) + steps, "b k v -> b (k v)")
        scores, chosen = totals.topk(num_beams, dim=1)
        beam, token = chosen // steps.shape[-1], chosen % steps.shape[-1]
        ids = ids.gather(1, repeat(beam, "b k -> b k l", l=ids.shape[2]))
        ids = torch.cat([ids, token.unsqueeze(-1)], dim=2)
        ended = ended.gather(1, beam) | (token == end)
    return ids, scores
