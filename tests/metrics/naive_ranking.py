"""Ranks as loops over single numbers, to hold the tiled ones against."""

import math
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]


def score_matrix(queries: Rows, candidates: Rows) -> list[list[float]]:
    return [[math.fsum(x * y for x, y in zip(query, other)) for other in candidates] for query in queries]


def dual_softmax(scores: Rows, scale: float) -> list[list[float]]:
    """s * exp(scale * s) / the sum of exp(scale * s) over the column, one row a query."""
    sums = [math.fsum(math.exp(scale * score) for score in column) for column in zip(*scores)]
    return [[score * math.exp(scale * score) / total for score, total in zip(row, sums)] for row in scores]


def best_ranks(scores: Rows, query_groups: Sequence[int], candidate_groups: Sequence[int]) -> list[int]:
    ranks = []
    for row, group in zip(scores, query_groups):
        best = max(score for score, other in zip(row, candidate_groups) if other == group)
        ranks.append(
            sum(1 for score, other in zip(row, candidate_groups) if other != group and score >= best)
        )
    return ranks


def smallest_gap(scores: Rows) -> float:
    """How far apart the nearest two scores of a query are, equal ones aside."""
    gaps = []
    for row in scores:
        values = sorted(set(row))
        gaps += [high - low for low, high in zip(values, values[1:])]
    return min(gaps, default=math.inf)
