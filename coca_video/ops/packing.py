"""Sequences of different lengths without their padding: one behind another, attention within each alone."""

import torch
from torch import Tensor

from coca_video.ops.attention import Backend, attend, attend_blocks, chosen


class Packing:
    """Which rows of a padded batch are real: 'b l ...' <-> 'n ...', in the order of the batch.

    mask: bool 'b l', True = real. On the meta device, which knows no values, all rows are real.
    """

    def __init__(self, mask: Tensor):
        if mask.is_meta:
            self.mask, self.index = mask, torch.arange(mask.numel(), device="meta")
            return
        longest = int(mask.any(dim=0).nonzero().max()) + 1 if mask.any() else 0
        self.mask = mask[:, :longest]
        self.index = self.mask.flatten().nonzero().squeeze(1)

    def pack(self, x: Tensor) -> Tensor:
        """'b l ...' -> 'n ...'; l may be longer than the longest sequence."""
        return x[:, : self.mask.shape[1]].flatten(0, 1).index_select(0, self.index)

    def unpack(self, x: Tensor) -> Tensor:
        """'n ...' -> 'b l ...', zeros where nothing is real; l is the longest sequence."""
        padded = x.new_zeros(self.mask.numel(), *x.shape[1:]).index_copy(0, self.index, x)
        return padded.unflatten(0, self.mask.shape)

    @property
    def lengths(self) -> list[int]:
        return self.mask.sum(dim=1).tolist()


def until_last(mask: Tensor) -> Tensor:
    """bool 'b l': True up to each row's last True, holes before it included."""
    return mask.flip(1).cumsum(1).flip(1) > 0


def attend_packed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    packing: Packing,
    *,
    mask: Tensor | None = None,
    backend: Backend = Backend.auto,
) -> Tensor:
    """Causal self-attention within each of the packed sequences: 'n heads d' -> 'n heads d'.

    Padding must come last in the packing's mask. mask: bool 'b l', the keys that are visible.
    xformers works on the packed rows; elsewhere they are padded for the attention alone, which is little
    beside the linear layers around it.
    """
    if mask is None and chosen(backend, q) is Backend.xformers:
        return attend_blocks(q, k, v, [length for length in packing.lengths if length])
    length = packing.mask.shape[1]
    mask = None if mask is None else mask[:, :length]
    q, k, v = (packing.unpack(x) for x in (q, k, v))
    return packing.pack(attend(q, k, v, mask=mask, causal=True, backend=backend))
