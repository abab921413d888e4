"""Captions from memories, and how good they are."""

import torch
from torch import Tensor

from coca_video.checkpoint import Checkpoint
from coca_video.data.tokenizer import BEGIN, END
from coca_video.generate import greedy
from coca_video.metrics.captioning import cider_d, distinct_ratio, exact_match


@torch.inference_mode()
def write_captions(
    checkpoint: Checkpoint, memory: Tensor, *, device: torch.device, batch_size: int = 64
) -> list[str]:
    """Caption memory 'b q d' -> one caption each, decoded greedily."""
    captions = []
    for part in memory.split(batch_size):
        part = part.to(device)

        def next_logits(ids: Tensor) -> Tensor:
            ids = ids.to(device)
            return checkpoint.model.caption_logits(part, ids, torch.ones_like(ids, dtype=torch.bool))[:, -1]

        length = checkpoint.model.config.text.context_length
        ids = greedy(next_logits, batch_size=len(part), begin=BEGIN, end=END, max_length=length)
        captions += [checkpoint.tokenizer.decode(row) for row in ids.tolist()]
    return captions


def caption_figures(captions: list[str], references: list[str]) -> dict[str, float]:
    """CIDEr-D (0 to 10), exact matches (per cent), distinct captions / captions."""
    single = [[reference] for reference in references]
    return {
        "cider_d": cider_d(captions, single)[0],
        "exact_match": 100 * exact_match(captions, single),
        "distinct_ratio": distinct_ratio(captions),
    }
