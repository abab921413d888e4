import pytest
import reference
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from memory import largest_tensor
from metrics.naive_ranking import best_ranks, dual_softmax, score_matrix, smallest_gap

from coca_video.metrics.ranking import (
    both_ways,
    ranks,
    ranks_in_tiles,
    recall,
    retrieval_figures,
    retrieval_summary,
)

# Rows: the target first, third (a tie with column 2), last, second.
SIMILARITY = torch.tensor(
    [
        [0.9, 0.1, 0.2, 0.3],
        [0.8, 0.5, 0.5, 0.1],
        [0.7, 0.6, -0.2, 0.1],
        [0.1, 0.9, 0.2, 0.4],
    ]
)
EXAMPLES = settings(max_examples=40, deadline=None, derandomize=True)


def test_ranks_of_a_hand_made_matrix():
    assert ranks(SIMILARITY, torch.arange(4)).tolist() == [0, 2, 3, 1]
    assert ranks(SIMILARITY, torch.tensor([1, 0, 0, 1])).tolist() == [3, 0, 0, 0]


def test_retrieval_figures_of_a_hand_made_matrix():
    expected = {"R@1": 25.0, "R@5": 100.0, "R@10": 100.0, "median_rank": 2.5, "mean_rank": 2.5}
    assert retrieval_figures(SIMILARITY) == expected
    assert retrieval_figures(torch.eye(3))["median_rank"] == 1


def test_retrieval_summary():
    expected = {"R@1": 20.0, "R@5": 40.0, "R@10": 80.0, "median_rank": 6.0, "mean_rank": 6.6}
    assert retrieval_summary(torch.tensor([10, 9, 5, 4, 0])) == pytest.approx(expected)


def test_a_tie_counts_against():
    assert ranks(torch.zeros(2, 5), torch.tensor([0, 4])).tolist() == [4, 4]
    assert retrieval_figures(torch.ones(5, 5))["R@1"] == 0


def test_infinities_are_compared():
    similarity = torch.tensor([[float("inf"), 1.0], [2.0, float("-inf")]])
    assert ranks(similarity, torch.tensor([0, 1])).tolist() == [0, 1]


def test_recall():
    rank = torch.tensor([0, 4, 5, 9, 10])
    assert [recall(rank, k) for k in (1, 5, 6, 10, 11)] == [20, 40, 60, 80, 100]


def test_equals_the_reference_with_many_ties():
    generator = torch.Generator().manual_seed(0)
    similarity = torch.randint(0, 4, (23, 9), generator=generator).float()
    targets = torch.randint(0, 9, (23,), generator=generator)
    ours, theirs = ranks(similarity, targets), reference.ranks(similarity, targets)
    assert ours.tolist() == theirs
    assert [recall(ours, k) for k in (1, 3)] == pytest.approx([reference.recall(theirs, k) for k in (1, 3)])


def test_nan_is_an_error():
    similarity = SIMILARITY.clone()
    similarity[2, 1] = float("nan")
    with pytest.raises(ValueError, match="1 NaN of 16 values"):
        ranks(similarity, torch.arange(4))
    with pytest.raises(ValueError, match="1 NaN of 16 values"):
        retrieval_figures(similarity)


def test_retrieval_needs_a_square():
    with pytest.raises(ValueError, match=r"square, got \(2, 3\)"):
        retrieval_figures(torch.zeros(2, 3))


def test_each_row_needs_a_target():
    with pytest.raises(ValueError, match=r"a target for each query, got \(4, 4\) and \(1,\)"):
        ranks(SIMILARITY, torch.tensor([0]))


def test_no_ranks_are_an_error():
    with pytest.raises(ValueError, match="at least one rank"):
        recall(torch.tensor([]), 1)
    with pytest.raises(ValueError, match="at least one rank"):
        retrieval_figures(torch.zeros(0, 0))


def tiled(queries, candidates, query_groups, candidate_groups, **options) -> list[int]:
    groups = {
        "query_groups": torch.as_tensor(query_groups),
        "candidate_groups": torch.as_tensor(candidate_groups),
    }
    return ranks_in_tiles(torch.as_tensor(queries), torch.as_tensor(candidates), **groups, **options).tolist()


@pytest.mark.parametrize("tile", [1, 2, 3, 4, 9])
def test_the_hand_made_matrix_in_tiles(tile):
    """The identity as candidates makes the queries their own scores."""
    assert tiled(SIMILARITY, torch.eye(4), range(4), range(4), tile=tile) == [0, 2, 3, 1]


def test_the_best_of_several_positives_counts():
    scores = torch.tensor([[0.5, 0.9, 0.1, 0.7], [0.5, 0.9, 0.1, 0.7]])
    assert tiled(scores, torch.eye(4), [0, 1], [0, 1, 1, 0], tile=2) == [1, 0]
    assert tiled(scores, torch.eye(4), [0, 1], [0, 1, 0, 0], tile=2) == [1, 0]
    assert tiled(scores, torch.eye(4), [0, 0], [0, 0, 0, 0], tile=3) == [0, 0]


@st.composite
def small_whole_embeddings(draw):
    """Many ties, several positives; sums are exact in any order."""
    width, num_groups = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    rows = st.lists(st.integers(-1, 2).map(float), min_size=width, max_size=width)
    groups = st.integers(0, num_groups - 1)
    queries = draw(st.lists(st.tuples(rows, groups), min_size=1, max_size=9))
    candidates = draw(st.lists(st.tuples(rows, groups), min_size=0, max_size=9))
    candidates += [(draw(rows), group) for group in range(num_groups)]
    candidates = draw(st.permutations(candidates))
    return *zip(*queries), *zip(*candidates)


@EXAMPLES
@given(small_whole_embeddings(), st.integers(1, 8))
def test_tiles_equal_the_naive_loops(embeddings, tile):
    queries, query_groups, candidates, candidate_groups = embeddings
    expected = best_ranks(score_matrix(queries, candidates), query_groups, candidate_groups)
    assert tiled(queries, candidates, query_groups, candidate_groups, tile=tile) == expected


@EXAMPLES
@given(small_whole_embeddings(), st.integers(1, 8))
def test_tiles_equal_the_ranks_of_the_whole_matrix(embeddings, tile):
    queries, _, candidates, _ = map(torch.tensor, embeddings)
    targets = torch.arange(len(queries)) % len(candidates)
    expected = ranks(queries @ candidates.T, targets).tolist()
    assert tiled(queries, candidates, targets, torch.arange(len(candidates)), tile=tile) == expected


@st.composite
def embeddings_with_copies(draw):
    """Normal values; some candidates are copies of others, of the same or of other groups."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    num_queries, num_distinct = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    which = list(range(num_distinct)) + draw(st.lists(st.integers(0, num_distinct - 1), max_size=6))
    which = draw(st.permutations(which))
    candidates = torch.randn(num_distinct, 5, generator=generator)[which]
    candidate_groups = draw(st.lists(st.integers(0, 5), min_size=len(which), max_size=len(which)))
    query_groups = draw(
        st.lists(st.sampled_from(candidate_groups), min_size=num_queries, max_size=num_queries)
    )
    return torch.randn(num_queries, 5, generator=generator), query_groups, candidates, candidate_groups


@EXAMPLES
@given(embeddings_with_copies(), st.integers(1, 8), st.sampled_from([0.5, 3.0]))
def test_dual_softmax_equals_the_naive_loops(embeddings, tile, scale):
    queries, query_groups, candidates, candidate_groups = embeddings
    scores = dual_softmax(score_matrix(queries.tolist(), candidates.tolist()), scale)
    assume(smallest_gap(scores) > 1e-5)  # nearer ones may change places in float32
    expected = best_ranks(scores, query_groups, candidate_groups)
    assert tiled(*embeddings[::2], *embeddings[1::2], tile=tile, dual_softmax=scale) == expected


def test_dual_softmax_changes_what_is_found():
    """Query 0 prefers candidate 1, but that is rather query 1's."""
    queries = torch.tensor([[0.5, 0.6], [0.1, 0.9]])
    assert tiled(queries, torch.eye(2), [0, 1], [0, 1]) == [1, 0]
    assert tiled(queries, torch.eye(2), [0, 1], [0, 1], dual_softmax=100.0) == [0, 0]


def test_small_shares_do_not_tie():
    """Query 1's are exp(-150) and exp(-170), both of them zero in float32."""
    queries = torch.tensor([[2.0, 2.1], [0.5, 0.4]])
    assert tiled(queries, torch.eye(2), [1, 0], [0, 1], dual_softmax=100.0) == [0, 0]


def test_equal_embeddings_tie_wherever_they_stand():
    """A last tile of few columns is summed in another order than the others, in which scores differ."""
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(70, 768, generator=generator)
    candidates = torch.randn(67, 768, generator=generator)
    candidates[:, 0] = 0.0
    candidates[64:] = candidates[:3]  # in the ragged last tile
    candidates[64, 0] = -0.0  # is equal too
    candidates[40] = candidates[2]
    apart = queries @ candidates[:32].T, queries @ candidates[64:].T
    if torch.equal(apart[0][:, :3], apart[1]):
        pytest.skip("the products of this machine do not depend on the tile")
    groups = torch.arange(67)
    scores = score_matrix(queries.tolist(), candidates.tolist())
    for target, copies in ((0, 1), (1, 1), (2, 2), (40, 2), (64, 1), (66, 2)):
        expected = best_ranks(scores, [target] * 70, groups.tolist())
        found = tiled(queries, candidates, [target] * 70, groups, tile=32)
        assert found == expected
        assert min(found) >= copies


@pytest.mark.parametrize("options", [{}, {"dual_softmax": 10.0}])
def test_collapsed_embeddings_find_nothing(options):
    embeddings = torch.randn(1, 300).expand(37, 300)
    assert tiled(embeddings, embeddings, range(37), range(37), tile=8, **options) == [36] * 37


def test_half_precision_is_multiplied_in_float32():
    generator = torch.Generator().manual_seed(0)
    queries, candidates = (torch.randn(12, 64, generator=generator).bfloat16() for _ in range(2))
    expected = ranks(queries.float() @ candidates.float().T, torch.arange(12)).tolist()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert tiled(queries, candidates, range(12), range(12), tile=5) == expected


@pytest.mark.parametrize("options", [{}, {"dual_softmax": 20.0}])
def test_no_more_than_a_tile_is_held(options):
    generator = torch.Generator().manual_seed(0)
    queries, candidates = torch.randn(300, 2, generator=generator), torch.randn(700, 2, generator=generator)
    candidates[1:300] = candidates[0]  # more copies of one embedding than a tile is wide
    groups = torch.arange(700)
    call = {"query_groups": groups[:300], "candidate_groups": groups, "tile": 64} | options
    assert largest_tensor(lambda: ranks_in_tiles(queries, candidates, **call)) == 64**2
    whole = largest_tensor(lambda: ranks_in_tiles(queries, candidates, **call | {"tile": 1000}))
    assert whole == 300 * 700  # so that a matrix would be seen


def test_both_ways_with_several_texts_a_video():
    videos = torch.eye(3)
    texts = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.3, 0.8, 0.5], [0.1, 0.2, 0.6]])
    groups = {"video_groups": torch.tensor([7, 8, 9]), "text_groups": torch.tensor([7, 7, 8, 9])}
    figures = both_ways(videos, texts, **groups, tile=2)
    # Text 1 finds video 8 before its own. Each video's best text is its own.
    expected = {"R@1": 75.0, "R@5": 100.0, "R@10": 100.0, "median_rank": 1.0, "mean_rank": 1.25}
    assert figures["text_to_video"] == expected
    assert figures["video_to_text"] == expected | {"R@1": 100.0, "mean_rank": 1.0}
    dual = both_ways(videos, texts, **groups, dual_softmax=50.0)
    assert dual["text_to_video"]["R@1"] == 75 and dual["video_to_text"]["R@1"] == 100


def test_equal_texts_of_different_videos_are_not_merged():
    texts = torch.eye(3)[[0, 0, 2]]
    figures = both_ways(torch.eye(3), texts, video_groups=torch.arange(3), text_groups=torch.arange(3))
    assert figures["video_to_text"]["R@1"] == pytest.approx(100 / 3)  # 0 ties, 1 is worse, 2 is found


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_bad_embeddings_are_an_error(value):
    bad = torch.eye(3)
    bad[1, :2] = float(value)
    with pytest.raises(ValueError, match="queries have 2 NaN or infinite of 9 values"):
        tiled(bad, torch.eye(3), range(3), range(3))
    with pytest.raises(ValueError, match="candidates have 2 NaN or infinite of 9 values"):
        tiled(torch.eye(3), bad, range(3), range(3))


def test_bad_scores_are_an_error():
    large = 1e30 * torch.eye(3)
    with pytest.raises(ValueError, match="scores have 3 NaN or infinite of 9 values"):
        tiled(large, large, range(3), range(3), tile=2)
    large[2] = large[1]
    with pytest.raises(ValueError, match="scores have 5 NaN or infinite of 9 values"):
        tiled(large, large, range(3), range(3), tile=2)


def test_a_query_without_positives_is_an_error():
    with pytest.raises(
        ValueError, match=r"query 1 is of group 5, .* no candidate \(2 of 3 queries have none\)"
    ):
        tiled(torch.eye(3), torch.eye(3), [0, 5, 6], range(3))


@pytest.mark.parametrize(
    "queries, candidates, query_groups, options, message",
    [
        (torch.zeros(0, 3), torch.eye(3), [], {}, r"queries must be one or more .* got shape \(0, 3\)"),
        (torch.eye(3), torch.eye(3), [0, 1], {}, r"queries are 3, but their groups have shape \(2,\)"),
        (torch.eye(2), torch.eye(3), [0, 1], {}, "queries are 2 wide, candidates 3"),
        (torch.eye(3), torch.eye(3), range(3), {"tile": 0}, "tile must be at least 1, got 0"),
        (torch.eye(3), torch.eye(3), range(3), {"dual_softmax": -1.0}, "a positive scale, got -1.0"),
        (torch.eye(3), torch.eye(3), range(3), {"dual_softmax": float("nan")}, "a positive scale, got nan"),
    ],
)
def test_what_does_not_pair_is_an_error(queries, candidates, query_groups, options, message):
    with pytest.raises(ValueError, match=message):
        tiled(queries, candidates, query_groups, range(3), **options)
