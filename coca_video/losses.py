"""CoCa's two losses (section 3.1, equations 2 and 3), as pure functions."""

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive_loss(video: Tensor, text: Tensor, scale: Tensor, *, groups: Tensor | None = None) -> Tensor:
    """Symmetric cross-entropy over a batch's similarities.

    video, text: 'b e', unit length; scale: scalar, 1 / temperature.
    groups: int 'b'; pairs of equal group describe the same thing, and share the target evenly instead of
        being each other's negatives (UniCL, arXiv 2204.03610). None: every pair is its own group.
    """
    similarity = scale * video @ text.T
    if groups is None:
        target = torch.arange(len(video), device=video.device)
    else:
        same = (groups.unsqueeze(0) == groups.unsqueeze(1)).to(similarity.dtype)
        target = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2


def caption_loss(logits: Tensor, ids: Tensor, mask: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of each real token given those before it.

    logits: 'b l v', position i predicting token i + 1; ids: 'b l', mask: bool 'b l' (True = real).
    """
    real = mask[:, 1:]
    return F.cross_entropy(logits[:, :-1][real], ids[:, 1:][real], label_smoothing=label_smoothing)
