import math
from collections.abc import Callable

import pytest
import reference
import torch
import torch.nn.functional as F
from memory import largest_tensor
from tiny import noise

from coca_video.ops.pairwise import TILE_SIZE, row_and_column_logsumexp, row_logsumexp

TILE_SIZES = [1, 3, 4, 100]


def inputs(scale: float) -> tuple[torch.Tensor, ...]:
    q, k = (F.normalize(noise(n, 5, seed=n).detach(), dim=-1).requires_grad_() for n in (9, 7))
    return q, k, torch.tensor(scale, requires_grad=True)


def plain_rows(q: torch.Tensor, k: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (scale * q @ k.T).logsumexp(dim=1)


def plain_columns(q: torch.Tensor, k: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (scale * q @ k.T).logsumexp(dim=0)


@pytest.mark.parametrize("tile_size", TILE_SIZES)
@pytest.mark.parametrize("scale", [0.0, 1 / 0.07, 100.0])
def test_rows_and_columns_equal_the_plain_form(tile_size, scale):
    reference.assert_equal_with_gradients(
        lambda *given: torch.cat(row_and_column_logsumexp(*given, tile_size=tile_size)).float(),
        lambda *given: torch.cat([plain_rows(*given), plain_columns(*given)]),
        *inputs(scale),
    )


@pytest.mark.parametrize("tile_size", TILE_SIZES)
def test_rows_alone(tile_size):
    reference.assert_equal_with_gradients(
        lambda *given: row_logsumexp(*given, tile_size=tile_size).float(), plain_rows, *inputs(100.0)
    )


@pytest.mark.parametrize("used, plain", enumerate([plain_rows, plain_columns]))
def test_one_of_both(used, plain):
    reference.assert_equal_with_gradients(
        lambda *given: row_and_column_logsumexp(*given, tile_size=4)[used].float(), plain, *inputs(100.0)
    )


@pytest.mark.parametrize("asked", range(3))
def test_only_the_gradient_that_is_asked(asked):
    given = inputs(100.0)

    def with_one(f: Callable) -> Callable:
        return lambda one: f(*(one if i == asked else x.detach() for i, x in enumerate(given)))

    ours, theirs = with_one(row_logsumexp), with_one(plain_rows)
    reference.assert_equal_with_gradients(lambda one: ours(one).float(), theirs, given[asked])


def test_the_excess_over_a_large_score():
    """Two equal scores of 1000: their log-sum-exp is ln 2 more, to better than float32 has at 1000."""
    ones = torch.ones(2, 1)
    (excess, _), _ = row_and_column_logsumexp(ones, ones, torch.tensor(1000.0), tile_size=1)
    assert excess.item() - 1000 == pytest.approx(math.log(2), abs=1e-6)


def test_autocast_changes_nothing():
    given = inputs(100.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = row_and_column_logsumexp(*given)
    for ours, exact in zip(found, row_and_column_logsumexp(*given)):
        assert torch.equal(ours, exact)


def test_no_more_than_a_tile_is_held():
    q, k, scale = noise(129, 2), noise(65, 2), torch.tensor(1.0)
    for used in (slice(0, 1), slice(0, 2)):
        largest = largest_tensor(
            lambda: torch.cat(row_and_column_logsumexp(q, k, scale, tile_size=64)[used]).sum().backward()
        )
        assert largest == 64**2
    assert largest_tensor(lambda: row_logsumexp(q, k, scale, tile_size=64).sum().backward()) == 64**2


def test_a_small_batch_is_one_tile():
    assert TILE_SIZE >= 1024
    q, k, scale = inputs(1.0)
    assert largest_tensor(lambda: row_logsumexp(q, k, scale)) == len(q) * len(k)
