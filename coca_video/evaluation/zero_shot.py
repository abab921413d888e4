"""Zero-shot classification: class names become texts, the nearest text is the prediction."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from coca_video.checkpoint import Checkpoint
from coca_video.evaluation.embedding import encode_texts
from coca_video.metrics.ranking import ranks, recall


def class_embeddings(
    checkpoint: Checkpoint, classes: list[str], templates: list[str], *, device: torch.device
) -> Tensor:
    """Per class the mean of its prompts' unit embeddings, made unit again (CLIP's protocol): 'classes e'."""
    prompts = [template.format(name) for name in classes for template in templates]
    embeddings = encode_texts(checkpoint, prompts, device=device)
    return F.normalize(rearrange(embeddings, "(c p) e -> c p e", c=len(classes)).mean(dim=1), dim=-1)


def top_k_figures(similarity: Tensor, labels: Tensor) -> dict[str, float]:
    """'clips classes', int 'clips' -> top-1 and top-5 accuracy in per cent."""
    rank = ranks(similarity, labels)
    return {"top1": recall(rank, 1), "top5": recall(rank, 5)}
