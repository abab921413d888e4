import math

import pytest
import torch
from steps import batch
from tiny import coca, image_config
from torch import Tensor, nn

from coca_video.training.compute import Accumulation
from coca_video.training.gradients import ModelCall, clip_gradients, compute_gradients
from coca_video.training.step import Inputs, LossConfig


@pytest.mark.parametrize(("clip_norm", "length"), [(1.0, 1.0), (10.0, 5.0), (0.0, 5.0)])
def test_the_whole_gradient_is_clipped(clip_norm, length):
    """The gradient is (3, 4), five long."""
    model = nn.Linear(2, 1, bias=False)
    before = model.weight.detach().clone()
    model(torch.tensor([3.0, 4.0])).sum().backward()
    norm = clip_gradients([model.weight], clip_norm)
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert norm.item() == pytest.approx(5.0)
    expected = before - torch.tensor([[3.0, 4.0]]) / 5 * length
    torch.testing.assert_close(model.weight.detach(), expected, atol=1e-5, rtol=0)
    assert math.isclose((model.weight - before).norm().item(), length, rel_tol=1e-4)


def test_rows_are_split_evenly_and_what_is_left_are_fillers():
    inputs = Inputs.of(batch(), batch().frames / 255)
    parts = inputs.split(2)
    assert [len(part) for part in parts] == [2, 1]
    assert torch.equal(torch.cat([part.ids for part in parts]), inputs.ids)
    parts = inputs.split(5)
    assert [len(part) for part in parts] == [1, 1, 1, 0, 0]
    assert [part.has_weight for part in parts] == [True, True, True, False, False]


def test_separate_micro_batches_have_their_own_negatives():
    """Two of the three clips against each other, and one that has no negative: its loss is zero."""
    model, given = coca(), batch()
    inputs = Inputs.of(given, given.frames / 255)
    how = {"micro_batch_size": 2, "accumulation": Accumulation.separate}
    found = compute_gradients(ModelCall(model), model, inputs, LossConfig(), **how)
    pair, alone = inputs.split(2)
    of_pair = compute_gradients(ModelCall(model), model, pair, LossConfig())
    of_alone = compute_gradients(ModelCall(model), model, alone, LossConfig())
    assert of_alone["contrastive"].abs() < 1e-6 < of_pair["contrastive"]
    torch.testing.assert_close(found["contrastive"], of_pair["contrastive"] * 2 / 3)
    cached = compute_gradients(ModelCall(model), model, inputs, LossConfig(), micro_batch_size=2)
    torch.testing.assert_close(found["caption"], cached["caption"])
    assert found["contrastive"] != cached["contrastive"]


def test_a_filler_has_a_gradient_of_zero():
    """Of every weight: other processes wait for it."""
    model, given = coca(), batch()
    given.is_filler = True
    found = compute_gradients(ModelCall(model), model, Inputs.of(given, given.frames / 255), LossConfig())
    assert found["loss"] == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


def test_each_micro_batch_has_dropout_of_its_own_and_the_same_in_both_passes():
    """Of two equal clips."""
    model, given = coca(image=image_config(dropout=0.5)).train(), batch()
    seen: list[Tensor] = []
    model.image_encoder.register_forward_hook(lambda _, x, y: seen.append(y.detach()))
    inputs = Inputs.of(given, given.frames[:1].expand(3, -1, -1, -1, -1) / 255)
    compute_gradients(ModelCall(model), model, inputs, LossConfig(), micro_batch_size=1)
    first, _, last = seen[:3]
    assert not torch.equal(first, last)
    assert torch.equal(seen[3], first) and torch.equal(seen[5], last)
