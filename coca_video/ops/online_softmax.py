"""Attention to keys that arrive in parts (online softmax, arXiv 1805.02867; as attention, 2112.05682).

What queries read from some of the keys has a fixed size, and what they read from others merges into it.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor


@dataclass
class PartialAttention:
    """Attention to the keys seen so far, before the division by the softmax's sum; at least float32.

    `merge` is commutative and, but for rounding, associative.
    """

    maximum: Tensor  # 'b l heads', of the scores; it cancels out of the result and carries no gradient
    total: Tensor  # 'b l heads', sum of exp(score - maximum); 0 where no key was visible
    weighted: Tensor  # 'b l heads d', sum of exp(score - maximum) * value

    def merge(self, other: "PartialAttention") -> "PartialAttention":
        """The same queries' attention to the keys of both, which must be different ones."""
        maximum = torch.maximum(self.maximum, other.maximum)
        ours, theirs = ((part.maximum - maximum).exp() for part in (self, other))
        total = ours * self.total + theirs * other.total
        weighted = ours.unsqueeze(-1) * self.weighted + theirs.unsqueeze(-1) * other.weighted
        return PartialAttention(maximum, total, weighted)

    def finish(self) -> Tensor:
        """'b l heads d', what `attend` gives for all keys at once: zeros where none was visible."""
        return self.weighted / self.total.masked_fill(self.total == 0, 1.0).unsqueeze(-1)


def partial_attention(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None) -> PartialAttention:
    """q: 'b l heads d' or '1 l heads d'; k, v: 'b s heads d'; mask: bool 'b s', True = visible.

    All scores 'b l heads s' exist at once: give few keys at a time.
    """
    dtype = torch.promote_types(q.dtype, torch.float32)
    scores = torch.einsum("blhd,bshd->blhs", q, k).to(dtype) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(rearrange(~mask, "b s -> b 1 1 s"), float("-inf"))
    # Finite also where no key is visible: -inf - -inf would be NaN.
    maximum = scores.detach().amax(dim=-1).clamp(min=torch.finfo(dtype).min)
    weights = (scores - maximum.unsqueeze(-1)).exp()
    weighted = torch.einsum("blhs,bshd->blhd", weights.to(v.dtype), v).to(dtype)
    return PartialAttention(maximum, weights.sum(dim=-1), weighted)
