import pytest
import reference
import torch
from tiny import noise

from coca_video.layers.pooler import AttentionalPooler

MASK = torch.tensor([[1, 1, 0, 1, 0, 1, 1], [1, 0, 1, 1, 1, 0, 0]], dtype=torch.bool)


@pytest.fixture(params=[1, 4], ids=["one query", "four queries"])
def pooler(request) -> AttentionalPooler:
    torch.manual_seed(0)
    module = AttentionalPooler(12, 3, num_queries=request.param, memory_width=10)
    for parameter in module.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=0.5)
    return module


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
def test_equals_the_reference(pooler, mask):
    visible = torch.ones_like(MASK) if mask is None else mask
    reference.assert_equal_with_gradients(
        lambda tokens, *_: pooler(tokens, mask=mask),
        lambda tokens, *_: reference.pooler(pooler, tokens, visible),
        noise(2, 7, 10),
        *pooler.parameters(),
    )


def test_the_order_of_the_tokens_does_not_matter(pooler):
    tokens, order = noise(2, 7, 10), torch.tensor([3, 0, 6, 2, 5, 1, 4])
    torch.testing.assert_close(pooler(tokens), pooler(tokens[:, order]))
    torch.testing.assert_close(pooler(tokens, mask=MASK), pooler(tokens[:, order], mask=MASK[:, order]))


def test_hidden_tokens_change_nothing(pooler):
    tokens = noise(2, 7, 10)
    replaced = torch.where(MASK.unsqueeze(-1), tokens, 100 * noise(2, 7, 10, seed=1))
    out = pooler(tokens, mask=MASK)
    assert torch.equal(out, pooler(replaced, mask=MASK))
    torch.testing.assert_close(out[0], pooler(tokens[:1, MASK[0]])[0])
    (gradient,) = torch.autograd.grad((out**3).sum(), tokens)
    assert (gradient[~MASK] == 0).all() and (gradient[MASK] != 0).any(dim=-1).all()


def test_num_queries_must_be_positive():
    with pytest.raises(ValueError, match="num_queries must be at least 1, got 0"):
        AttentionalPooler(12, 3, num_queries=0, memory_width=12)
