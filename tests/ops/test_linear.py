import pytest
import torch
import torch.nn.functional as F
from tiny import noise

from coca_video.layers.linear import Linear, packed_linears
from coca_video.ops.linear import FEW_ROWS, pack, packed_linear

SHAPES = [(1, 7), (2, 7), (3, 5, 7), (2, 1, 3, 7), (FEW_ROWS, 7), (FEW_ROWS + 1, 7), (0, 3, 7)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("has_bias", [True, False])
@torch.no_grad()
def test_a_packed_product_is_the_plain_one(shape, has_bias):
    x, weight, bias = noise(*shape), noise(11, 7, seed=1), noise(11, seed=2) if has_bias else None
    packed = pack(weight)
    if packed is None:
        pytest.skip("this torch has no oneDNN")
    torch.testing.assert_close(packed_linear(x, packed, bias), F.linear(x, weight, bias), atol=1e-5, rtol=0)


@torch.no_grad()
def test_rows_that_lie_apart():
    layer, x = Linear(7, 11), noise(4, 7, 6).mT
    expected = F.linear(x, layer.weight, layer.bias)
    with packed_linears(layer):
        torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=0)


def test_gradients_are_the_plain_ones():
    layer, x = Linear(7, 11), noise(3, 7)
    with packed_linears(layer):
        layer(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.sum(dim=0).expand(11, 7).detach())


def test_nothing_packed_is_left_behind():
    layer = Linear(7, 11)
    with pytest.raises(RuntimeError, match="stop"), packed_linears(torch.nn.Sequential(layer)):
        assert layer.packed is not None and set(layer.state_dict()) == {"weight", "bias"}
        raise RuntimeError("stop")
    assert layer.packed is None
    layer.load_state_dict(Linear(7, 11).state_dict())
    with torch.no_grad(), packed_linears(layer):
        x = noise(3, 7)
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), atol=1e-5, rtol=0)


def test_an_inner_block_leaves_an_outer_one_s_copies():
    layer, other = Linear(7, 11), Linear(7, 11)
    with packed_linears(layer):
        kept = layer.packed
        with packed_linears(layer, other):
            assert layer.packed is kept and other.packed is not None
        assert layer.packed is kept and other.packed is None
    assert layer.packed is None
