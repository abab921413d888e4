import copy

import pytest
import torch
from torch import nn

from coca_video.training.adafactor import Adafactor

# What optax 0.2.8 gives (scale_by_factored_rms, decay capped at 0.999; clip_by_block_rms; ema in float64)
# after four steps of rate 0.1 from zeros, with the gradients of `gradient`, factored over two dimensions:
# the first two elements and the last, without a first moment and with one of 0.9.
PUBLISHED = {
    (3, 4): ([-0.461722, 0.0511353, -0.171678], [-0.1179803, -0.0196204, -0.0316115]),
    (2, 4, 3, 2): ([-0.3742622, 0.0224945, -0.2068793], [-0.0912156, -0.0252326, -0.0373572]),
    (5,): ([-0.3763153, 0.0235414, 0.0022192], [-0.0892194, -0.0266672, 0.0170629]),
    (1,): ([-0.3981223], [-0.0903022]),
}


def gradient(shape: tuple[int, ...], step: int) -> torch.Tensor:
    """step: from 1."""
    numbers = torch.arange(1, torch.Size(shape).numel() + 1)
    return (step**2 * torch.sin(0.7 * step * numbers)).reshape(shape)


def trained(shape: tuple[int, ...], *, num_steps: int = 4, **settings) -> nn.Parameter:
    parameter = nn.Parameter(torch.zeros(shape))
    optimizer = Adafactor([parameter], **({"lr": 0.1, "min_size": 2} | settings))
    for step in range(1, num_steps + 1):
        parameter.grad = gradient(shape, step)
        optimizer.step()
    return parameter


@pytest.mark.parametrize("shape", PUBLISHED)
@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_steps_are_those_of_the_published_code(shape, beta1):
    """The first moment to three digits, as bfloat16 has them."""
    found = trained(shape, betas=(beta1, 0.999)).detach().flatten()
    some = found if len(found) == 1 else found[[0, 1, -1]]
    expected = torch.tensor(PUBLISHED[shape][1 if beta1 else 0])
    torch.testing.assert_close(some, expected, atol=3e-4 if beta1 else 1e-6, rtol=0)


def test_orientation_does_not_matter():
    """Rows and columns are treated alike."""
    parameters = [nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(4, 3))]
    optimizer = Adafactor(parameters, lr=0.1, min_size=2)
    for step in range(1, 5):
        parameters[0].grad = gradient((3, 4), step)
        parameters[1].grad = gradient((3, 4), step).T.contiguous()
        optimizer.step()
    torch.testing.assert_close(parameters[0].T, parameters[1].detach(), atol=1e-4, rtol=0)


def test_a_cap_of_the_second_moments_decay():
    """At 0 each step is that of its own gradient: of a scalar, its sign."""
    found = trained((1,), betas=(0.0, 0.0), num_steps=3)
    signs = sum(gradient((1,), step).sign() for step in (1, 2, 3))
    torch.testing.assert_close(found.detach(), -0.1 * signs)


def test_a_large_step_is_clipped():
    """Gradients of 1, then 10: the second moment lags behind, so that the step would be longer than 1."""
    moved = []
    for clip_rms in (0.0, 1.0, 0.5):
        parameter = nn.Parameter(torch.zeros(4))
        optimizer = Adafactor([parameter], lr=1.0, betas=(0.0, 0.999), clip_rms=clip_rms)
        for size in (1.0, 10.0):
            before = parameter.detach().clone()
            parameter.grad = torch.full((4,), size)
            optimizer.step()
        moved.append((before - parameter.detach()).square().mean().sqrt().item())
    assert moved[0] > 1.2
    assert moved[1:] == pytest.approx([1.0, 0.5])


def test_decay_is_decoupled():
    parameter = nn.Parameter(torch.tensor([[2.0, -4.0]]))
    parameter.grad = torch.zeros_like(parameter)
    Adafactor([parameter], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(parameter.detach(), torch.tensor([[1.9, -3.8]]))


def test_a_matrix_costs_a_bfloat16_number_an_element():
    matrix, small, vector = (nn.Parameter(torch.zeros(shape)) for shape in [(64, 48), (64, 31), (64,)])
    optimizer = Adafactor([matrix, small, vector], lr=0.1)
    sizes = {n: (x.dtype, tuple(x.shape)) for n, x in optimizer.state[matrix].items()}
    assert sizes == {
        "step": (torch.float32, ()),
        "momentum": (torch.bfloat16, (64, 48)),
        "rows": (torch.float32, (64,)),
        "columns": (torch.float32, (48,)),
    }
    for whole in (small, vector):
        assert optimizer.state[whole]["square"].shape == whole.shape
    assert "momentum" not in Adafactor([matrix], lr=0.1, betas=(0.0, 0.999)).state[matrix]


def test_what_is_taken_up_goes_on_to_the_last_bit():
    parameter = trained((3, 4))
    optimizer = Adafactor([parameter], lr=0.1, min_size=2)
    parameter.grad = gradient((3, 4), 5)
    optimizer.step()
    other = nn.Parameter(parameter.detach().clone())
    taken_up = Adafactor([other], lr=0.3, min_size=2)
    taken_up.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert taken_up.state[other]["momentum"].dtype is torch.bfloat16
    for each, its in ((parameter, optimizer), (other, taken_up)):
        each.grad = gradient((3, 4), 6)
        its.step()
    assert torch.equal(parameter, other)


def test_what_has_no_gradient_stays():
    parameters = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))]
    optimizer = Adafactor(parameters, lr=0.1, weight_decay=0.5)
    parameters[0].grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(parameters[1], torch.ones(3)) and not torch.equal(parameters[0], torch.ones(3))
    assert [optimizer.state[p]["step"].item() for p in parameters] == [1, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"betas": (0.9, 1.0)}, r"betas must be in \[0, 1\), got"),
        ({"eps": 0.0}, "eps must be positive, got 0.0"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        Adafactor([nn.Parameter(torch.zeros(2))], lr=0.1, **settings)
