import math

import pytest
import torch
from processes import start
from steps import batch
from taught import all_tasks, batch_for, with_head
from taught_processes import CASES, Case, Outcome, learn, learn_cases
from tiny import coca, image_config
from torch import Tensor, nn

from coca_video.training.compute import Accumulation, Precision
from coca_video.training.gradients import (
    ModelCall,
    clip_gradients,
    compute_gradients,
    compute_task_gradients,
)
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


@pytest.mark.parametrize("task", all_tasks(), ids=lambda task: task.name)
def test_micro_batches_of_a_task_equal_one_pass(task):
    """Three, two and one row at a time; and with parts that have none."""
    model = with_head(coca(), task)
    batch = batch_for(task, 5)
    inputs, found = Inputs.of(batch, batch.frames / 255), []
    for size in (0, 3, 2, 1):
        model.zero_grad()
        losses = compute_task_gradients(ModelCall(model), model, inputs, task, micro_batch_size=size)
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        found.append((losses, gradients))
    for losses, gradients in found[1:]:
        torch.testing.assert_close(losses, found[0][0])
        torch.testing.assert_close(gradients, found[0][1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("micro_batch_size", [0, 2])
def test_a_batch_of_which_nothing_could_be_read(micro_batch_size):
    """Gradients of zero, and no loss of 0 / 0."""
    task = all_tasks()[1]
    model, batch = with_head(coca(), task), batch_for(task, 1)
    batch.is_filler = True
    inputs = Inputs.of(batch, batch.frames / 255)
    micro = {"micro_batch_size": micro_batch_size}
    found = compute_task_gradients(ModelCall(model), model, inputs, task, **micro)
    assert set(found) == {"task", "accuracy", "answer", "loss"} and not any(found.values())
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and not any(gradient.any() for gradient in gradients)


def test_tasks_in_two_processes_equal_one(tmp_path):
    """Every way to share; uneven shares, and one without a row."""
    start(learn_cases, 2, str(tmp_path / "meeting"), CASES, tmp_path / "outcomes", num_processes=2)
    alone: dict[Case, Outcome] = {}
    for case, outcome in zip(CASES, torch.load(tmp_path / "outcomes"), strict=True):
        found, plain = Outcome(**outcome), case.plain
        alone[plain] = expected = alone.get(plain) or learn(plain)
        exact = case.precision is Precision.float32
        for ours, theirs in zip(found.losses, expected.losses, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5 if exact else 0.05), case
        for name, weight in expected.weights.items():
            close = {"atol": 1e-5 if exact else 5e-3, "rtol": 0}
            torch.testing.assert_close(
                found.weights[name], weight, **close, msg=lambda m: f"{case} {name} {m}"
            )
