"""What processes do to test batch norm of a shared batch: here, where a spawned process can import it."""

import torch
from processes import own_leaf, splits
from tiny import noise
from torch import nn

from coca_video.layers.batch_norm import BatchNorm, without_weight
from coca_video.layers.patches import PatchEmbedding, Stem
from coca_video.ops.distributed import own_rows, sum_over_processes

NUM_PICTURES, WIDTH = 8, 3


def batch_norms(*, mean: float = 0.0) -> tuple[nn.BatchNorm2d, BatchNorm, torch.Tensor]:
    """torch's, ours with the same weights and running statistics, and pictures."""
    plain, ours = nn.BatchNorm2d(WIDTH), BatchNorm(WIDTH)
    with torch.no_grad():
        for i, value in enumerate((plain.weight, plain.bias, plain.running_mean)):
            value.copy_(noise(WIDTH, seed=3 + i))
    ours.load_state_dict(plain.state_dict())
    pictures = noise(NUM_PICTURES, WIDTH, 4, 5).detach() * torch.tensor([1.0, 2, 3])[:, None, None]
    return plain, ours, (pictures + mean).requires_grad_()


def shared_rows(rank: int) -> None:
    weights = noise(NUM_PICTURES, WIDTH, 4, 5, seed=1).detach()
    for counts in splits(NUM_PICTURES):
        plain, ours, pictures = batch_norms()
        expected = plain(pictures)
        gradients = torch.autograd.grad((expected * weights).sum(), (pictures, plain.weight, plain.bias))
        own = own_leaf(pictures, counts)
        found = ours(own)
        torch.testing.assert_close(found, own_rows(expected, counts), atol=1e-5, rtol=0)
        total = (found * own_rows(weights, counts)).sum()
        of_pictures, *of_weights = torch.autograd.grad(total, (own, ours.weight, ours.bias))
        torch.testing.assert_close(of_pictures, own_rows(gradients[0], counts), atol=1e-5, rtol=1e-5)
        for part, whole in zip(of_weights, gradients[1:]):
            torch.testing.assert_close(sum_over_processes(part), whole, atol=1e-5, rtol=1e-5)
        assert_equal_states(ours, plain)


def assert_equal_states(ours: nn.Module, plain: nn.Module) -> None:
    for (name, value), expected in zip(ours.state_dict().items(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5, msg=name)


def a_large_mean(rank: int) -> None:
    """float32 sums of squares would lose the variance, which is a millionth of them."""
    plain, ours, pictures = batch_norms(mean=1000.0)
    counts = splits(NUM_PICTURES)[0]
    expected = plain.double()(pictures.double()).float()
    torch.testing.assert_close(
        ours(own_leaf(pictures, counts)), own_rows(expected, counts), atol=1e-3, rtol=0
    )


def fillers(rank: int) -> None:
    """The first process has a filler: it takes part, and changes nothing for the others."""
    weights = noise(NUM_PICTURES, WIDTH, 4, 5, seed=1).detach()
    counts = splits(NUM_PICTURES)[1]
    plain, ours, pictures = batch_norms()
    expected = plain(pictures)
    (gradient,) = torch.autograd.grad((expected * weights).sum(), pictures)
    if rank:
        own = own_leaf(pictures, counts)
        found = ours(own)
        torch.testing.assert_close(found, own_rows(expected, counts), atol=1e-5, rtol=0)
        (of_own,) = torch.autograd.grad((found * own_rows(weights, counts)).sum(), own)
        torch.testing.assert_close(of_own, own_rows(gradient, counts), atol=1e-5, rtol=1e-5)
    else:
        filler = torch.full((1, WIDTH, 4, 5), 77.0, requires_grad=True)
        with without_weight(ours):
            found = ours(filler)
        of_weights = torch.autograd.grad(found[:0].sum(), (filler, ours.weight, ours.bias))
        assert not any(part.any() for part in of_weights)
    assert_equal_states(ours, plain)


def fillers_alone(rank: int) -> None:
    _, ours, pictures = batch_norms()
    before = {
        name: value.clone() for name, value in ours.state_dict().items() if name != "num_batches_tracked"
    }
    with without_weight(ours):
        found = ours(pictures)
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in before.items())
    torch.testing.assert_close(found, ours.eval()(pictures))


def low_precision(rank: int) -> None:
    """Under autocast the rows are bfloat16; the statistics are not."""
    plain, ours, pictures = batch_norms()
    counts = splits(NUM_PICTURES)[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        own = own_leaf(pictures.bfloat16(), counts)
        found, expected = ours(own), plain(pictures.bfloat16())
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, own_rows(expected, counts), atol=0.03, rtol=0.01)
    assert torch.autograd.grad(found.sum(), own)[0].dtype == torch.bfloat16
    assert_equal_states(ours, plain)


def stems(rank: int) -> None:
    """The whole stem, several norms one behind the other; a mere shape is not exchanged."""
    counts = splits(NUM_PICTURES)[1]
    torch.manual_seed(0)
    stem = PatchEmbedding(8, patch_size=4, stem=Stem.conv)
    pixels = noise(NUM_PICTURES, 3, 16, 16).detach()
    stem(own_rows(pixels, counts))
    running = [value for name, value in stem.state_dict().items() if "running" in name]
    assert running
    for value in running:
        torch.testing.assert_close(sum_over_processes(value), value * len(counts))
    if not rank:
        assert stem.to("meta")(torch.empty(1, 3, 16, 16, device="meta")).shape == (1, 16, 8)


def others_gradients(rank: int) -> None:
    """A process without a loss of its own has a gradient: its rows are in the others' statistics."""
    _, ours, pictures = batch_norms()
    counts = splits(NUM_PICTURES)[0]
    own = own_leaf(pictures, counts)
    (gradient,) = torch.autograd.grad((ours(own) ** 3).sum() * rank, own)
    assert gradient.any()
