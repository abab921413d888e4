import torch

from coca_video.training.seeds import seed_of


def drawn(*numbers: int) -> tuple[float, ...]:
    return tuple(torch.rand(3, generator=torch.Generator().manual_seed(seed_of(*numbers))).tolist())


def test_whatever_differs_draws_differently():
    """Also in the high bits, which a CPU's generator would not see."""
    numbers = [(), (1,), (2,), (1, 0), (0, 1), (1, 1), (-1,), (1 << 32,), (1 + (1 << 32),), (1 << 64,)]
    assert len({drawn(*some) for some in numbers}) == len(numbers)
    assert drawn(1, 2) == drawn(1, 2)
