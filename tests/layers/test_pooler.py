import pytest
import reference
import torch
from tiny import noise

from coca_video.layers import pooler as pooler_file
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


@pytest.fixture
def three_at_a_time(monkeypatch) -> None:
    monkeypatch.setattr(pooler_file, "MAX_AT_ONCE", 6)
    monkeypatch.setattr(pooler_file, "CHUNK", 3)


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
def test_many_tokens_are_read_in_chunks(pooler, mask, three_at_a_time):
    """Values and gradients are the reference's; no layer ever sees more than a chunk, forward or backward."""
    seen = []
    pooler.norm_tokens.register_forward_hook(lambda module, inputs, out: seen.append(out.shape[1]))
    visible = torch.ones_like(MASK) if mask is None else mask
    reference.assert_equal_with_gradients(
        lambda tokens, *_: pooler(tokens, mask=mask),
        lambda tokens, *_: reference.pooler(pooler, tokens, visible),
        noise(2, 7, 10),
        *pooler.parameters(),
    )
    assert seen[:3] == [3, 3, 1] and sorted(seen[3:]) == [1, 3, 3]  # once more for the gradients


def test_of_tokens_in_chunks_nothing_else_is_kept_for_the_gradients(pooler, three_at_a_time):
    """But for two numbers a chunk, query and head, by which chunks were merged."""

    def num_kept(tokens) -> int:
        kept = {}  # a storage counts once: chunks are views of the tokens

        def keep(x):
            return kept.setdefault(x.untyped_storage().data_ptr(), x)

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            pooler(tokens)
        return sum(x.numel() for x in kept.values())

    for_a_chunk = (num_kept(noise(2, 3 * 53, 10)) - num_kept(noise(2, 3 * 3, 10))) / 50
    assert for_a_chunk == 2 * 2 * len(pooler.queries) * pooler.attention.num_heads


def test_hidden_tokens_in_chunks_are_as_hidden_at_once(pooler, monkeypatch):
    tokens = noise(2, 7, 10)
    expected = pooler(tokens, mask=MASK & False)
    monkeypatch.setattr(pooler_file, "MAX_AT_ONCE", 6)
    out = pooler(tokens, mask=MASK & False)
    torch.testing.assert_close(out, expected)
    assert (torch.autograd.grad(out.sum(), tokens)[0] == 0).all()


def test_parts_read_apart_are_the_whole(pooler):
    tokens = noise(2, 7, 10)
    first, second = pooler.read(tokens[:, :2], mask=MASK[:, :2]), pooler.read(tokens[:, 2:], mask=MASK[:, 2:])
    for read in (first.merge(second), second.merge(first)):
        torch.testing.assert_close(pooler.finish(read), pooler(tokens, mask=MASK), atol=1e-5, rtol=0)


def test_the_weights_are_those_of_the_result(pooler):
    tokens = noise(2, 7, 10)
    weights = pooler.weights(tokens, mask=MASK)
    _, values = pooler.attention.keys_values(pooler.norm_tokens(tokens))
    read = torch.einsum("bhqn,bnhd->bqhd", weights, values).flatten(-2)
    torch.testing.assert_close(pooler.norm_out(pooler.attention.out(read)), pooler(tokens, mask=MASK))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_reading_keeps_the_models_precision(pooler, dtype):
    pooler, tokens = pooler.to(dtype), noise(2, 7, 10).to(dtype)
    out = pooler.finish(pooler.read(tokens, mask=MASK))
    assert out.dtype == dtype
    tolerance = {torch.bfloat16: 0.1, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(out, pooler(tokens, mask=MASK), atol=tolerance, rtol=0)


def test_num_queries_must_be_positive():
    with pytest.raises(ValueError, match="num_queries must be at least 1, got 0"):
        AttentionalPooler(12, 3, num_queries=0, memory_width=12)
