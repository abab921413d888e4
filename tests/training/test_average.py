import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from coca_video.training.average import Average


def build_model() -> nn.Module:
    """With parameters of two parts, and buffers."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3))


def move(model: nn.Module, step: int) -> None:
    """As a training step would: what asks for a gradient, and the buffers."""
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape, generator=generator)
        model[1].running_mean += step
        model[1].num_batches_tracked += 1


def clones(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: x.clone() for name, x in state.items()}


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(expected)
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


@pytest.mark.parametrize("decay", [0.9, 0.3, 0.0])
def test_torchs_average_to_the_last_bit(decay):
    model = build_model()
    average, torchs = Average(model, decay), AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    for step in range(5):
        move(model, step)
        average.update(model)
        torchs.update_parameters(model)
        assert_equal(average.state_dict(), torchs.module.state_dict())


def test_it_begins_as_the_model_and_does_not_move_with_it():
    model = build_model()
    average, before = Average(model, 0.9), clones(model.state_dict())
    move(model, 1)
    assert_equal(average.state_dict(), before)


def test_no_decay_is_the_raw_weights_at_no_cost():
    model = build_model()
    average = Average(model, 0.0)
    move(model, 1)
    average.update(model)
    for name, x in model.state_dict().items():
        assert average.state_dict()[name].data_ptr() == x.data_ptr()


def test_what_is_never_trained_is_not_held():
    model = build_model()
    model[0].requires_grad_(False)
    average = Average(model, 0.9)
    for name, x in model.state_dict().items():
        assert (average.state_dict()[name].data_ptr() == x.data_ptr()) == name.startswith("0."), name


def test_phases_that_train_more_and_more():
    """What is frozen at first is averaged from when it moves; what is frozen at last is still approached."""
    model = build_model()
    average = Average(model, 0.5, trained=[name for name, _ in model.named_parameters()])
    torchs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    for step in range(6):
        model[0].requires_grad_(step >= 3)
        model[1].requires_grad_(step < 3)
        move(model, step)
        average.update(model)
        torchs.update_parameters(model)
        assert_equal(average.state_dict(), torchs.module.state_dict())


def test_a_parameter_that_was_not_to_be_trained():
    model = build_model()
    average = Average(model, 0.5, trained=["0.weight", "0.bias"])
    with pytest.raises(RuntimeError, match="not among the parameters to be averaged: 1.weight, 1.bias"):
        average.update(model)


@pytest.mark.parametrize("saved_at", [0, 1, 3])
def test_what_is_taken_up_goes_on_to_the_last_bit(saved_at):
    """Also from before the first update, which copies."""
    model = build_model()
    average = Average(model, 0.9)
    for step in range(6):
        if step == saved_at:
            weights, saved = clones(model.state_dict()), clones(average.state_dict())
        move(model, step)
        average.update(model)

    other = build_model()
    other.load_state_dict(weights)
    taken_up = Average(other, 0.9)
    taken_up.load_state_dict(saved, num_updates=saved_at)
    for step in range(saved_at, 6):
        move(other, step)
        taken_up.update(other)
    assert_equal(taken_up.state_dict(), average.state_dict())


def test_loading_leaves_what_it_loads_from_alone():
    model = build_model()
    average, saved = Average(model, 0.9), clones(Average(model, 0.9).state_dict())
    kept = clones(saved)
    average.load_state_dict(saved, num_updates=1)
    move(model, 1)
    average.update(model)
    assert_equal(saved, kept)


def test_a_warm_up_of_the_decay():
    """Updates 1 and 2 have decays of 2/11 and 3/12; the first copies."""
    model = nn.Linear(1, 1, bias=False)
    average = Average(model, 0.9, warm_up=True)
    values = [1.0, 5.0, -3.0]
    for value in values:
        nn.init.constant_(model.weight, value)
        average.update(model)
    expected = values[0] * 2 / 11 + values[1] * 9 / 11
    expected = expected * 3 / 12 + values[2] * 9 / 12
    assert average.state_dict()["weight"].item() == pytest.approx(expected)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_out_of_range(decay):
    with pytest.raises(ValueError, match=rf"decay must be in \[0, 1\), got {decay}"):
        Average(build_model(), decay)
