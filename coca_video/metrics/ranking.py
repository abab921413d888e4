"""Ranks of right answers, and the figures made of them. A tie counts against; a NaN is an error."""

from collections.abc import Iterator
from hashlib import blake2b

import torch
from torch import Tensor

from coca_video.ops.pairwise import row_logsumexp

TILE = 4096  # rows and columns: 64 MiB of scores in float32


def ranks(similarity: Tensor, targets: Tensor) -> Tensor:
    """0-based rank of each row's target column: how many other columns score as high or higher.

    similarity: 'queries candidates', targets: int 'queries'; returns int 'queries'.
    Raises ValueError for a NaN, which would compare as neither.
    """
    if similarity.ndim != 2 or targets.shape != similarity.shape[:1]:
        raise ValueError(
            "expected similarity 'queries candidates' and a target for each query, "
            f"got {tuple(similarity.shape)} and {tuple(targets.shape)}"
        )
    if similarity.isnan().any():
        raise ValueError(f"similarity has {int(similarity.isnan().sum())} NaN of {similarity.numel()} values")
    target = similarity.gather(1, targets.unsqueeze(1))
    return (similarity >= target).sum(dim=1) - 1


def recall(rank: Tensor, k: int) -> float:
    """Percentage of 0-based ranks among the first k: top-k accuracy and R@k alike."""
    if not len(rank):
        raise ValueError("expected at least one rank, got none")
    return 100 * (rank < k).double().mean().item()


def retrieval_summary(rank: Tensor) -> dict[str, float]:
    """R@1/5/10 in per cent, median and mean rank (from 1) of 0-based ranks 'queries'."""
    return {f"R@{k}": recall(rank, k) for k in (1, 5, 10)} | {
        "median_rank": rank.double().quantile(0.5).item() + 1,
        "mean_rank": rank.double().mean().item() + 1,
    }


def retrieval_figures(similarity: Tensor) -> dict[str, float]:
    """`retrieval_summary` of a square similarity, i belonging to i."""
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1]:
        raise ValueError(f"similarity must be square, got {tuple(similarity.shape)}")
    return retrieval_summary(ranks(similarity, torch.arange(len(similarity), device=similarity.device)))


def both_ways(
    videos: Tensor,
    texts: Tensor,
    *,
    video_groups: Tensor,
    text_groups: Tensor,
    tile: int = TILE,
    dual_softmax: float | None = None,
) -> dict[str, dict[str, float]]:
    """`retrieval_summary` of both directions: videos 'n e', texts 'm e', int groups 'n' and 'm'.

    A group is a video with all of its texts: any of them is a right answer for the video. Equal texts of
    different videos are not merged, as in MSR-VTT 1K-A. See `ranks_in_tiles` for the rest, errors included.
    """
    options = {"tile": tile, "dual_softmax": dual_softmax}
    to_video = ranks_in_tiles(
        texts, videos, query_groups=text_groups, candidate_groups=video_groups, **options
    )
    to_text = ranks_in_tiles(
        videos, texts, query_groups=video_groups, candidate_groups=text_groups, **options
    )
    return {"text_to_video": retrieval_summary(to_video), "video_to_text": retrieval_summary(to_text)}


@torch.no_grad()
def ranks_in_tiles(
    queries: Tensor,
    candidates: Tensor,
    *,
    query_groups: Tensor,
    candidate_groups: Tensor,
    tile: int = TILE,
    dual_softmax: float | None = None,
) -> Tensor:
    """0-based rank of each query's best positive, by the products of embeddings; their matrix is never held.

    queries 'n e', candidates 'm e', query_groups int 'n', candidate_groups int 'm' -> int64 'n'. The
    positives of a query are the candidates of its group. Its rank is the number of other candidates that
    score at least as high as its best positive. Products are of float32; those of equal candidates are equal,
    wherever they stand.

    With `dual_softmax`, a scale, a score s becomes s * p, where p is the query's share in a softmax of
    scale * s over all queries for the candidate (CAMoE, arXiv 2109.04290). As it uses the other queries, such
    ranks are not to be reported as plain ones.

    Memory is that of a few tiles of tile x tile scores and a copy of the candidates.
    Raises ValueError for embeddings or scores that are NaN or infinite, for a query without any positive, and
    for an empty set or lengths that differ.
    """
    if tile < 1:
        raise ValueError(f"tile must be at least 1, got {tile}")
    if dual_softmax is not None and not 0 < dual_softmax < float("inf"):
        raise ValueError(f"dual_softmax must be a positive scale, got {dual_softmax}")
    queries = _checked(queries, query_groups, "queries")
    candidates = _checked(candidates, candidate_groups, "candidates")
    if queries.shape[1] != candidates.shape[1]:
        raise ValueError(f"queries are {queries.shape[1]} wide, candidates {candidates.shape[1]}")
    query_groups, candidate_groups = query_groups.to(queries.device), candidate_groups.to(queries.device)
    _check_positives(query_groups, candidate_groups)
    with torch.autocast(queries.device.type, enabled=False):
        scores = _TiledScores(queries, candidates, tile, dual_softmax)
        return _ranks(scores, query_groups, candidate_groups)


class _TiledScores:
    """Scores of queries and candidates, tile by tile.

    Each distinct candidate is multiplied once, and all candidates that are equal to it share the result.
    Otherwise equal embeddings need not tie: a product depends on where in a matrix it stands, as the last,
    narrower tile or the last columns of any tile may be summed in another order (MKL sums eight columns or
    fewer unlike thirteen). Neither equal shapes nor wider sums would exclude this, rounding may still differ.

    A tile that is asked for twice is the same product of the same operands, and so the same to the last bit.
    """

    def __init__(self, queries: Tensor, candidates: Tensor, tile: int, dual_softmax: float | None):
        distinct, self._which = _first_alike(candidates, tile).unique(return_inverse=True)
        self._queries, self._tile, self._scale = queries, tile, dual_softmax
        self._distinct = candidates if len(distinct) == len(candidates) else candidates[distinct]
        # Per tile of distinct candidates: all candidates that are equal to one of these, in their order.
        sizes = [int(copies.sum()) for copies in self._which.bincount().split(tile)]
        self.columns = self._which.argsort(stable=True).split(sizes)
        self.dtype = queries.dtype
        if dual_softmax is not None:
            # In float32 small shares would be zero, and all their candidates tie.
            self.dtype = torch.float64
            scale = torch.tensor(dual_softmax, dtype=queries.dtype, device=queries.device)
            self._lse = row_logsumexp(self._distinct, queries, scale, tile_size=tile)

    def rows(self) -> Iterator[slice]:
        return (slice(i, i + self._tile) for i in range(0, len(self._queries), self._tile))

    def of(self, rows: slice, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Columns 'c' and scores 'r c' of one tile; where many candidates are equal, in several parts."""
        start = number * self._tile
        distinct = slice(start, start + self._tile)
        scores = (self._queries[rows] @ self._distinct[distinct].T).to(self.dtype)
        if self._scale is not None:
            scores *= (self._scale * scores - self._lse[distinct]).exp_()
        columns = self.columns[number]
        if len(columns) == scores.shape[1]:
            yield columns, scores
            return
        for part in columns.split(self._tile):
            yield part, scores[:, self._which[part] - start]


def _ranks(scores: _TiledScores, query_groups: Tensor, candidate_groups: Tensor) -> Tensor:
    found = []
    num_bad = 0
    for rows in scores.rows():
        best = _best_positives(scores, rows, query_groups[rows], candidate_groups)
        rank = torch.zeros_like(best, dtype=torch.int64)
        for number in range(len(scores.columns)):
            for columns, part in scores.of(rows, number):
                others = query_groups[rows, None] != candidate_groups[columns]
                rank += ((part >= best[:, None]) & others).sum(dim=1)
                num_bad += part.isfinite().logical_not_().sum()
        found.append(rank)
    if num_bad:
        num_scores = len(query_groups) * len(candidate_groups)
        raise ValueError(f"scores have {int(num_bad)} NaN or infinite of {num_scores} values")
    return torch.cat(found)


def _best_positives(
    scores: _TiledScores, rows: slice, query_groups: Tensor, candidate_groups: Tensor
) -> Tensor:
    """The highest score among each query's positives, read from the tiles that have any: mostly one."""
    best = torch.full(query_groups.shape, float("-inf"), dtype=scores.dtype, device=query_groups.device)
    for number, columns in enumerate(scores.columns):
        if torch.isin(candidate_groups[columns], query_groups).any():
            for part_columns, part in scores.of(rows, number):
                others = query_groups[:, None] != candidate_groups[part_columns]
                best = torch.maximum(best, part.masked_fill(others, float("-inf")).amax(dim=1))
    return best


def _first_alike(rows: Tensor, at_a_time: int) -> Tensor:
    """'n e' -> int64 'n': the number of the first row that is equal to each. Digests stand for rows."""
    first: dict[bytes, int] = {}
    numbers = []
    for part in rows.split(at_a_time):
        for row in (part + 0.0).cpu().numpy():  # + 0.0 turns -0.0, which is equal to 0.0, into it
            numbers.append(first.setdefault(blake2b(row, digest_size=16).digest(), len(numbers)))
    return torch.tensor(numbers, device=rows.device)


def _checked(rows: Tensor, groups: Tensor, name: str) -> Tensor:
    """The embeddings as float32."""
    if rows.ndim != 2 or not len(rows):
        raise ValueError(f"{name} must be one or more embeddings 'n e', got shape {tuple(rows.shape)}")
    if groups.shape != rows.shape[:1]:
        raise ValueError(f"{name} are {len(rows)}, but their groups have shape {tuple(groups.shape)}")
    rows = rows.float().contiguous()
    num_bad = int(rows.isfinite().logical_not_().sum())
    if num_bad:
        raise ValueError(f"{name} have {num_bad} NaN or infinite of {rows.numel()} values")
    return rows


def _check_positives(query_groups: Tensor, candidate_groups: Tensor) -> None:
    without = torch.isin(query_groups, candidate_groups, invert=True).nonzero().flatten()
    if len(without):
        first = int(without[0])
        raise ValueError(
            f"query {first} is of group {int(query_groups[first])}, of which there is no candidate "
            f"({len(without)} of {len(query_groups)} queries have none)"
        )
