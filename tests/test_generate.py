import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coca_video.generate import beam_search, greedy

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


NUM_TOKENS, MAX_LENGTH = 4, 4  # begin, end and two letters; three tokens after begin


def scored(ids: Tensor) -> Tensor:
    """Logits of four tokens that depend on the whole text so far."""
    seeds = (ids * torch.tensor([7, 31, 57, 91])[: ids.shape[1]]).sum(dim=1)
    rows = [torch.randn(NUM_TOKENS, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    return 2 * torch.stack(rows)


def all_texts() -> dict[tuple[int, ...], float]:
    """Every text of up to MAX_LENGTH ids with its log-probability; ended ones are filled with END."""
    found = {}
    for tokens in itertools.product(range(NUM_TOKENS), repeat=MAX_LENGTH - 1):
        ids, score = [BEGIN], 0.0
        for token in tokens:
            score += scored(torch.tensor([ids])).log_softmax(dim=-1)[0, token].item()
            ids.append(token)
            if token == END:
                break
        found[tuple(ids + [END] * (MAX_LENGTH - len(ids)))] = score
    return found


def test_enough_beams_find_the_likeliest_texts():
    num_beams = NUM_TOKENS ** (MAX_LENGTH - 1)
    limits = {"begin": BEGIN, "end": END, "max_length": MAX_LENGTH}
    ids, scores = beam_search(scored, batch_size=1, num_beams=num_beams, **limits)
    best = sorted(all_texts().items(), key=lambda item: -item[1])[:10]
    assert [tuple(row) for row in ids[0, :10].tolist()] == [text for text, _ in best]
    assert scores[0, :10].tolist() == pytest.approx([score for _, score in best], abs=1e-5)


def test_one_beam_is_greedy():
    limits = {"batch_size": 3, "begin": BEGIN, "end": END, "max_length": MAX_LENGTH}
    ids, _ = beam_search(scored, num_beams=1, **limits)
    assert torch.equal(ids[:, 0], greedy(scored, **limits))


def test_beams_of_a_row_are_distinct_texts_in_order():
    limits = {"begin": BEGIN, "end": END, "max_length": MAX_LENGTH}
    ids, scores = beam_search(scored, batch_size=2, num_beams=3, **limits)
    assert all(len(set(map(tuple, row))) == 3 for row in ids.tolist())
    assert torch.equal(scores, scores.sort(dim=1, descending=True).values)
