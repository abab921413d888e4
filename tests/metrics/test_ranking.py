import pytest
import reference
import torch

from coca_video.metrics.ranking import ranks, recall, retrieval_figures

# Rows: the target first, third (a tie with column 2), last, second.
SIMILARITY = torch.tensor(
    [
        [0.9, 0.1, 0.2, 0.3],
        [0.8, 0.5, 0.5, 0.1],
        [0.7, 0.6, -0.2, 0.1],
        [0.1, 0.9, 0.2, 0.4],
    ]
)


def test_ranks_of_a_hand_made_matrix():
    assert ranks(SIMILARITY, torch.arange(4)).tolist() == [0, 2, 3, 1]
    assert ranks(SIMILARITY, torch.tensor([1, 0, 0, 1])).tolist() == [3, 0, 0, 0]


def test_retrieval_figures_of_a_hand_made_matrix():
    expected = {"R@1": 25.0, "R@5": 100.0, "R@10": 100.0, "median_rank": 2.5, "mean_rank": 2.5}
    assert retrieval_figures(SIMILARITY) == expected
    assert retrieval_figures(torch.eye(3))["median_rank"] == 1


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
