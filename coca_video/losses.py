"""CoCa's two losses (section 3.1, equations 2 and 3), as pure functions."""

import torch
from torch import Tensor

from coca_video.ops.cross_entropy import linear_cross_entropy
from coca_video.ops.distributed import gather, num_processes, own_rows, row_counts, sum_over_processes
from coca_video.ops.pairwise import row_and_column_logsumexp, row_logsumexp
from coca_video.ops.ring import ring_logsumexp


def contrastive_loss(
    video: Tensor, text: Tensor, scale: Tensor, *, groups: Tensor | None = None, ring: bool = False
) -> Tensor:
    """Symmetric cross-entropy over a batch's similarities, in float32; they are never held all at once.

    video, text: 'b e', unit length; scale: scalar, 1 / temperature.
    groups: int 'b'; pairs of equal group describe the same thing, and share the target evenly instead of
        being each other's negatives (UniCL, arXiv 2204.03610). None: every pair is its own group.
    In a distributed run the pairs of all processes are the batch; a process may have more than another, or
    none. Each gets the sum of its own rows' losses, scaled such that the mean over processes is the loss of
    the batch, and the mean of their gradients its gradient. All must call, and call backward or none.
    ring: embeddings travel from process to process, and none holds those of all (`ops/ring.py`).
    """
    video, text, scale = video.float(), text.float(), scale.float()
    counts = row_counts(text)
    if len(counts) == 1:
        video_lse, text_lse = row_and_column_logsumexp(video, text, scale)
        right = _scores(video, text if groups is None else _group_means(text, groups), scale)
    elif ring:
        video_lse, text_lse, right = ring_logsumexp(video, text, scale, counts, groups=groups)
        right = _scores(video, text, scale) if groups is None else right
    else:
        video_lse, text_lse, right = _against_all(video, text, scale, counts, groups)
    losses = (video_lse + text_lse) / 2 - right
    return (losses.sum() / (max(sum(counts), 1) / len(counts))).float()


def _against_all(
    video: Tensor, text: Tensor, scale: Tensor, counts: list[int], groups: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Own rows' log-sum-exps over those of all processes, and their mean scores of right answers: 'b'."""
    all_text = gather(text, counts)
    video_lse = row_logsumexp(video, all_text, scale)
    text_lse = row_logsumexp(text, gather(video, counts), scale)
    if groups is not None:
        text = own_rows(_group_means(all_text, gather(groups, counts)), counts)
    return video_lse, text_lse, _scores(video, text, scale)


def _scores(video: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Of each pair, 'b'."""
    return scale * (video * text).sum(dim=-1)


def _group_means(x: Tensor, groups: Tensor) -> Tensor:
    """Replaces each row of x 'b e' by the mean of its group, groups int 'b'."""
    _, index, sizes = groups.unique(return_inverse=True, return_counts=True)
    sums = x.new_zeros(len(sizes), x.shape[1]).index_add(0, index, x)
    return (sums / sizes.unsqueeze(1))[index]


def caption_loss(
    features: Tensor,
    vocabulary: Tensor,
    targets: Tensor,
    *,
    label_smoothing: float = 0.0,
    divisor: Tensor | float | None = None,
) -> Tensor:
    """Cross-entropy of each token given those before it: the sum over tokens / divisor.

    features: 'n d', of the tokens before; vocabulary: 'v d', which maps them to scores; targets: int 'n', the
    tokens. All of them are real: padding is left out (`ops/packing.py`).
    divisor: None is for the mean. In a distributed run it is the number of all processes' tokens / that of
        processes, so that the mean over processes is the mean over the batch's tokens; all must call.
    Raises ValueError where n is 0 in a process that runs alone, without a divisor.
    """
    if divisor is None and num_processes() == 1:
        return linear_cross_entropy(features, vocabulary, targets, label_smoothing=label_smoothing)
    if divisor is None:
        num_tokens = torch.tensor(float(len(features)), dtype=torch.float64, device=features.device)
        divisor = sum_over_processes(num_tokens) / num_processes()
    if not len(features):
        return (
            (features.to(vocabulary.dtype) @ vocabulary.T).sum().float()
        )  # 0, of which both have a gradient
    mean = linear_cross_entropy(features, vocabulary, targets, label_smoothing=label_smoothing)
    return (mean * (len(features) / divisor)).to(mean.dtype)
