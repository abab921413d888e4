"""The head of recognition and understanding: one learned query reads features, a linear map names a class."""

import torch.nn.functional as F
from torch import Tensor, nn

from coca_video.layers.linear import Linear
from coca_video.layers.pooler import AttentionalPooler


class PooledClassifier(nn.Module):
    """Features 'b n d' -> logits 'b c' (CoCa, sections 3.3 and 4.2).

    For recognition the features are the image encoder's tokens, of a video those of all frames; for
    understanding the multimodal decoder's. Begins undecided: all logits are zero.

    num_parts: so many features are pooled one by one, and what was pooled is classified together (the two
        pictures of NLVR2). A hidden layer then stands between: whether just one of two shows something is
        no linear function of both.
    """

    def __init__(self, width: int, num_heads: int, *, num_classes: int, num_parts: int = 1):
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        self.num_parts = num_parts
        self.pooler = AttentionalPooler(width, num_heads, num_queries=1, memory_width=width)
        self.hidden = Linear(num_parts * width, num_parts * width) if num_parts > 1 else None
        self.classes = Linear(num_parts * width, num_classes)
        nn.init.zeros_(self.classes.weight)
        nn.init.zeros_(self.classes.bias)

    def forward(self, features: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """features: '(b parts) n d', mask: bool '(b parts) n', True = real; returns logits 'b c'."""
        pooled = self.pooler(features, mask=mask)[:, 0]
        pooled = pooled.unflatten(0, (-1, self.num_parts)).flatten(1)
        return self.classes(pooled if self.hidden is None else F.gelu(self.hidden(pooled)))
