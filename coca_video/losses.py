"""CoCa's two losses (section 3.1, equations 2 and 3), as pure functions."""

from torch import Tensor

from coca_video.ops.cross_entropy import linear_cross_entropy
from coca_video.ops.distributed import gather, num_processes, own_rows
from coca_video.ops.pairwise import row_and_column_logsumexp, row_logsumexp


def contrastive_loss(video: Tensor, text: Tensor, scale: Tensor, *, groups: Tensor | None = None) -> Tensor:
    """Symmetric cross-entropy over a batch's similarities, in float32; they are never held all at once.

    video, text: 'b e', unit length; scale: scalar, 1 / temperature.
    groups: int 'b'; pairs of equal group describe the same thing, and share the target evenly instead of
        being each other's negatives (UniCL, arXiv 2204.03610). None: every pair is its own group.
    In a distributed run all processes must call, with equally many pairs (else ValueError). Theirs together
    are the batch: each gets the loss of its own rows, and the mean over processes is that of the batch.
    """
    video, text, scale = video.float(), text.float(), scale.float()
    all_text = gather(text)
    if num_processes() == 1:
        video_lse, text_lse = row_and_column_logsumexp(video, text, scale)
    else:
        video_lse = row_logsumexp(video, all_text, scale)
        text_lse = row_logsumexp(text, gather(video), scale)
    right = text if groups is None else own_rows(_group_means(all_text, gather(groups)))
    return ((video_lse + text_lse) / 2 - scale * (video * right).sum(dim=-1)).mean().float()


def _group_means(x: Tensor, groups: Tensor) -> Tensor:
    """Replaces each row of x 'b e' by the mean of its group, groups int 'b'."""
    _, index, sizes = groups.unique(return_inverse=True, return_counts=True)
    sums = x.new_zeros(len(sizes), x.shape[1]).index_add(0, index, x)
    return (sums / sizes.unsqueeze(1))[index]


def caption_loss(
    features: Tensor, vocabulary: Tensor, targets: Tensor, *, label_smoothing: float = 0.0
) -> Tensor:
    """Mean cross-entropy of each token given those before it.

    features: 'n d', of the tokens before; vocabulary: 'v d', which maps them to scores; targets: int 'n', the
    tokens. All of them are real: padding is left out (`ops/packing.py`). Raises ValueError where n is 0.
    """
    return linear_cross_entropy(features, vocabulary, targets, label_smoothing=label_smoothing)
