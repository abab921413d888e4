import torch
import torch.nn.functional as F
from torch import Tensor

from coca_video.generate import greedy

BEGIN, END = 1, 2
CAPTIONS = [[5, 6, 7, 8, END], [4, END], [END]]


def next_logits(ids: Tensor) -> Tensor:
    """Spells CAPTIONS out for texts that agree with them so far; token 9 for all others."""
    chosen = []
    for row, caption in zip(ids.tolist(), CAPTIONS):
        begun = row == [BEGIN, *caption][: len(row)]
        chosen.append(caption[len(row) - 1] if begun and len(row) <= len(caption) else 9)
    return F.one_hot(torch.tensor(chosen), 10).float()


def test_rows_end_one_by_one():
    ids = greedy(next_logits, batch_size=3, begin=BEGIN, end=END, max_length=20)
    assert ids.tolist() == [
        [BEGIN, 5, 6, 7, 8, END],
        [BEGIN, 4, END, END, END, END],
        [BEGIN, END, END, END, END, END],
    ]


def test_max_length_counts_begin():
    ids = greedy(next_logits, batch_size=3, begin=BEGIN, end=END, max_length=3)
    assert ids.tolist() == [[BEGIN, 5, 6], [BEGIN, 4, END], [BEGIN, END, END]]


def test_stops_as_soon_as_all_have_ended():
    lengths = []

    def ends_at_once(ids: Tensor) -> Tensor:
        lengths.append(ids.shape[1])
        return F.one_hot(torch.full((len(ids),), END), 10).float()

    ids = greedy(ends_at_once, batch_size=2, begin=BEGIN, end=END, max_length=20)
    assert ids.tolist() == [[BEGIN, END]] * 2
    assert lengths == [1]
