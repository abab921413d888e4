import math

import pytest
import torch
from torch import nn

from coca_video.probes.judging import Candidates, judge, logits_of
from coca_video.probes.tokens import ReadingConfig, Vectors

ALL, PRESENT = Candidates.all, Candidates.present


def test_views_are_added_as_probabilities():
    logits = torch.tensor([[4.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 9.0], [0.0, 0.0, 0.0]])
    judged = judge(logits, torch.tensor([0, 0, 1, 1]), num_views=2, candidates=ALL)
    expected = (logits[::2].double().softmax(-1) + logits[1::2].double().softmax(-1)) / 2
    torch.testing.assert_close(judged.probabilities, expected)
    figures = judged.figures()
    assert figures["top1"] == 50.0
    assert figures["log_loss"] == pytest.approx(-(expected[0, 0].log() + expected[1, 1].log()).item() / 2)


def test_only_classes_that_are_present_compete():
    logits, labels = torch.tensor([[1.0, 2.0, 9.0, 0.0], [3.0, 1.0, 9.0, 0.0]]), torch.tensor([1, 0])
    among_all = judge(logits, labels, num_views=1, candidates=ALL)
    among_two = judge(logits, labels, num_views=1, candidates=PRESENT)
    assert (among_all.candidates, among_two.candidates) == ([0, 1, 2, 3], [0, 1])
    assert (among_all.figures()["top1"], among_two.figures()["top1"]) == (0.0, 100.0)
    assert among_two.figures()["log_loss"] == pytest.approx(
        (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2))) / 2
    )


def test_a_head_that_has_diverged():
    assert judge(torch.tensor([[1.0, math.nan]]), torch.tensor([0]), num_views=1, candidates=ALL) is None


class Weighted(nn.Module):
    def __init__(self, weight: float):
        super().__init__()
        self.register_buffer("weight", torch.tensor(weight))

    def forward(self, inputs):
        return inputs.content * self.weight


def test_items_are_read_once_for_all_heads():
    content = torch.arange(600.0).view(300, 2)
    found = logits_of(
        [Weighted(1.0), Weighted(3.0)], Vectors(content, torch.zeros(300)), config=ReadingConfig()
    )
    assert torch.equal(found[0], content) and torch.equal(found[1], 3 * content)
