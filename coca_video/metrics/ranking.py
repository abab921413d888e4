"""Ranks in a similarity matrix, and the figures made of them. A tie counts against; a NaN is an error."""

import torch
from torch import Tensor


def ranks(similarity: Tensor, targets: Tensor) -> Tensor:
    """0-based rank of each row's target column: how many other columns score as high or higher.

    similarity: 'queries candidates', targets: int 'queries'; returns int 'queries'.
    Raises ValueError for a NaN, which would compare as neither.
    """
    if similarity.isnan().any():
        raise ValueError(f"similarity has {int(similarity.isnan().sum())} NaN of {similarity.numel()} values")
    target = similarity.gather(1, targets.unsqueeze(1))
    return (similarity >= target).sum(dim=1) - 1


def recall(rank: Tensor, k: int) -> float:
    """Percentage of ranks among the first k: top-k accuracy and R@k alike."""
    return 100 * (rank < k).double().mean().item()


def retrieval_figures(similarity: Tensor) -> dict[str, float]:
    """R@1/5/10 in per cent, median and mean rank (from 1) of a square similarity, i belonging to i."""
    if similarity.shape[0] != similarity.shape[1]:
        raise ValueError(f"similarity must be square, got {tuple(similarity.shape)}")
    rank = ranks(similarity, torch.arange(len(similarity), device=similarity.device))
    return {
        "R@1": recall(rank, 1),
        "R@5": recall(rank, 5),
        "R@10": recall(rank, 10),
        "median_rank": rank.double().quantile(0.5).item() + 1,
        "mean_rank": rank.double().mean().item() + 1,
    }
