import importlib.util

import pytest
import reference
import torch
import torch.nn.functional as F
from memory import largest_tensor
from tiny import noise

from coca_video.ops.cross_entropy import CHUNK_BYTES, linear_cross_entropy

NUM_ROWS, WIDTH, NUM_SCORES = 11, 5, 23


def inputs(*, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The first and the last score are among the targets, and one comes twice."""
    targets = torch.tensor([0, 22, 3, 7, 7, 1, 12, 9, 20, 4, 15])
    x, weight = noise(NUM_ROWS, WIDTH), noise(NUM_SCORES, WIDTH, seed=1)
    return *(y.detach().to(device).requires_grad_() for y in (x, weight)), targets.to(device)


def plain(x: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, **options) -> torch.Tensor:
    return F.cross_entropy(x @ weight.T, targets, **options)


@pytest.mark.parametrize("chunk_size", [None, 1, 4, NUM_ROWS, 100])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_equals_the_plain_form(chunk_size, label_smoothing):
    x, weight, targets = inputs()
    options = {"label_smoothing": label_smoothing}
    reference.assert_equal_with_gradients(
        lambda x, weight: linear_cross_entropy(x, weight, targets, chunk_size=chunk_size, **options),
        lambda x, weight: plain(x, weight, targets, **options),
        x,
        weight,
    )


def test_scores_that_overflow_the_exponential():
    x, weight, targets = inputs()
    reference.assert_equal_with_gradients(
        lambda x: linear_cross_entropy(500 * x, weight, targets, chunk_size=4),
        lambda x: plain(500 * x, weight, targets),
        x,
    )


def test_the_gradient_scales_with_what_comes_in_and_again():
    x, weight, targets = inputs()
    loss = linear_cross_entropy(x, weight, targets)
    once = torch.autograd.grad(loss, (x, weight), retain_graph=True)
    twice = torch.autograd.grad(2 * loss, (x, weight))
    for a, b in zip(once, twice):
        torch.testing.assert_close(2 * a, b)


@pytest.mark.parametrize("asked", [(True, False), (False, True)])
def test_only_what_is_asked(asked):
    x, weight, targets = inputs()
    x.requires_grad_(asked[0]), weight.requires_grad_(asked[1])
    (only,) = [y for y in (x, weight) if y.requires_grad]
    ours, theirs = (torch.autograd.grad(f(x, weight, targets), only) for f in (linear_cross_entropy, plain))
    torch.testing.assert_close(*ours, *theirs, atol=1e-5, rtol=0)


def test_the_weights_gradient_is_not_made_in_vain():
    x, weight, targets = inputs()
    size = weight.numel()
    assert largest_tensor(lambda: linear_cross_entropy(x, weight, targets, chunk_size=1)) == size
    with torch.no_grad():
        assert largest_tensor(lambda: linear_cross_entropy(x, weight, targets, chunk_size=1)) < size
    frozen = weight.detach()
    assert largest_tensor(lambda: linear_cross_entropy(x, frozen, targets, chunk_size=1).backward()) < size


def test_the_scores_are_never_all_held():
    num_scores = 2**16
    rows_at_once = CHUNK_BYTES // (4 * num_scores)
    x, weight = noise(3 * rows_at_once, 2), noise(num_scores, 2, seed=1)
    targets = torch.arange(len(x))
    largest = largest_tensor(lambda: linear_cross_entropy(x, weight, targets).backward())
    assert largest == rows_at_once * num_scores


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_autocast(label_smoothing):
    """The products are as rough as bfloat16; what follows is as exact as float32."""
    x, weight, targets = inputs()
    options = {"label_smoothing": label_smoothing}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = linear_cross_entropy(x, weight, targets, chunk_size=4, **options)
    scores = (x.bfloat16() @ weight.bfloat16().T).float()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, F.cross_entropy(scores, targets, **options), atol=1e-5, rtol=0)
    expected = torch.autograd.grad(plain(x, weight, targets, **options), (x, weight))
    for ours, exact in zip(torch.autograd.grad(found, (x, weight)), expected):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, exact, atol=0.02 * exact.abs().max().item(), rtol=0)


def test_weights_of_low_precision():
    x, weight, targets = inputs()
    low = [y.detach().bfloat16().requires_grad_() for y in (x, weight)]
    found = torch.autograd.grad(linear_cross_entropy(*low, targets, chunk_size=2), low)
    for ours, exact in zip(found, torch.autograd.grad(plain(x, weight, targets), (x, weight))):
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours.float(), exact, atol=0.02 * exact.abs().max().item(), rtol=0)


def test_shapes_alone():
    x, weight, targets = inputs(device="meta")
    gradients = torch.autograd.grad(linear_cross_entropy(x, weight, targets), (x, weight))
    assert [g.shape for g in gradients] == [x.shape, weight.shape]


def test_no_rows():
    _, weight, targets = inputs()
    with pytest.raises(ValueError, match=r"needs at least one row, got x of shape \(0, 5\)"):
        linear_cross_entropy(torch.zeros(0, WIDTH), weight, targets[:0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_liger_kernel_equals_the_plain_form(label_smoothing):
    if importlib.util.find_spec("liger_kernel") is None:
        pytest.skip("Liger Kernel is not installed")
    x, weight, targets = inputs(device="cuda")
    options = {"label_smoothing": label_smoothing}
    reference.assert_equal_with_gradients(
        lambda x, weight: 2 * linear_cross_entropy(x, weight, targets, **options),
        lambda x, weight: 2 * plain(x, weight, targets, **options),
        x,
        weight,
    )
