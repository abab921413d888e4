"""Captions from memories, and how good they are."""

import torch
from einops import rearrange, repeat
from torch import Tensor

from coca_video.checkpoint import Checkpoint
from coca_video.data.tokenizer import BEGIN, END
from coca_video.evaluation.embedding import encode_texts
from coca_video.generate import beam_search, greedy
from coca_video.metrics.captioning import cider_d, distinct_ratio, exact_match

NUM_BEAMS = 8  # the default wherever captions are written: docs/LOG.md


def describe_decoding(num_beams: int) -> str:
    """What a result says of how its captions were written."""
    if num_beams == 1:
        return "greedy"
    return f"beam search ({num_beams}), the beam nearest to the clip's embedding"


@torch.inference_mode()
def write_captions(
    checkpoint: Checkpoint,
    memory: Tensor,
    embeddings: Tensor,
    *,
    device: torch.device,
    num_beams: int,
    batch_size: int = 64,
) -> list[str]:
    """Caption memory 'b q d' and unit embeddings 'b e' of clips -> one caption each.

    Beam search proposes num_beams captions a clip, and the contrastive half of the model chooses: the one
    whose text embedding is nearest to the clip's. One beam is greedy decoding.
    """
    captions = []
    for part, targets in zip(memory.split(batch_size), embeddings.split(batch_size)):
        proposed = _propose(checkpoint, part.to(device), num_beams=num_beams)
        texts = encode_texts(checkpoint, [text for beams in proposed for text in beams], device=device)
        texts = rearrange(texts, "(b k) e -> b k e", k=num_beams)
        nearest = torch.einsum("be,bke->bk", targets.cpu(), texts).argmax(dim=1)
        captions += [beams[i] for beams, i in zip(proposed, nearest.tolist())]
    return captions


def _propose(checkpoint: Checkpoint, memory: Tensor, *, num_beams: int) -> list[list[str]]:
    """num_beams captions for each row of memory 'b q d', likeliest first."""
    beam_memory = repeat(memory, "b q d -> (b k) q d", k=num_beams)

    def next_logits(ids: Tensor) -> Tensor:
        ids = ids.to(memory.device)
        is_real = torch.ones_like(ids, dtype=torch.bool)
        return checkpoint.model.caption_logits(beam_memory, ids, is_real)[:, -1]

    length = checkpoint.model.config.text.context_length
    settings = {"batch_size": len(memory), "begin": BEGIN, "end": END, "max_length": length}
    if num_beams == 1:
        ids = greedy(next_logits, **settings).unsqueeze(1)
    else:
        ids, _ = beam_search(next_logits, num_beams=num_beams, **settings)
    return [[checkpoint.tokenizer.decode(beam) for beam in row] for row in ids.tolist()]


def caption_figures(captions: list[str], references: list[str]) -> dict[str, float]:
    """CIDEr-D (0 to 10), exact matches (per cent), distinct captions / captions."""
    single = [[reference] for reference in references]
    return {
        "cider_d": cider_d(captions, single)[0],
        "exact_match": 100 * exact_match(captions, single),
        "distinct_ratio": distinct_ratio(captions),
    }
