import pytest
import reference
import torch
from tiny import noise, shaken

from coca_video.models.poolers import Poolers, PoolerStyle

MASK = torch.tensor([[1, 1, 0, 1, 0, 1, 1], [1, 0, 1, 1, 1, 0, 0]], dtype=torch.bool)
CASES = [(style, num) for style in PoolerStyle for num in (0, 1, 2, 32)]
CASES = [(style, num) for style, num in CASES if style is not PoolerStyle.shared or num > 1]


def build(style: PoolerStyle, num_queries: int) -> Poolers:
    torch.manual_seed(0)
    return shaken(Poolers(12, 3, image_width=10, num_queries=num_queries, style=style))


def plain(module: Poolers, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The caption memory and the summary, from the reference of one pooler."""
    memory, visible = tokens, mask
    if module.caption is not None:
        memory = reference.pooler(module.caption, tokens, mask)
        visible = torch.ones(memory.shape[:2], dtype=torch.bool)
    if module.style is PoolerStyle.shared:
        return memory[:, 1:], memory[:, 0]
    if module.style is PoolerStyle.parallel:
        return memory, reference.pooler(module.contrastive, tokens, mask)[:, 0]
    return memory, reference.pooler(module.contrastive, memory, visible)[:, 0]


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
@pytest.mark.parametrize("style, num_queries", CASES)
def test_equal_the_reference(style, num_queries, mask):
    poolers = build(style, num_queries)

    def ours(tokens, *_):
        memory, summary = poolers(tokens, mask)
        return torch.cat([memory.tokens.flatten(1), summary], dim=1)

    def theirs(tokens, *_):
        memory, summary = plain(poolers, tokens, torch.ones_like(MASK) if mask is None else mask)
        return torch.cat([memory.flatten(1), summary], dim=1)

    reference.assert_equal_with_gradients(ours, theirs, noise(2, 7, 10), *poolers.parameters())


@pytest.mark.parametrize("style, num_queries", CASES)
def test_the_size_of_the_memory(style, num_queries):
    """Without caption queries it is the image tokens, with their mask."""
    poolers, tokens = build(style, num_queries), noise(2, 7, 10)
    memory, summary = poolers(tokens, MASK)
    num_tokens = {0: 7}.get(num_queries, num_queries - (style is PoolerStyle.shared))
    assert memory.tokens.shape == (2, num_tokens, poolers.memory_width) and summary.shape == (2, 12)
    if num_queries:
        assert memory.mask is None
    else:
        assert memory.tokens is tokens and memory.mask is MASK


@pytest.mark.parametrize(
    "style, for_memory, for_summary",
    [
        (PoolerStyle.cascade, [True, True, True], [True, True, True]),
        (PoolerStyle.parallel, [True, True, True], [False, False, False]),
        (PoolerStyle.shared, [False, True, True], [True, False, False]),
    ],
)
def test_what_the_caption_queries_are_for(style, for_memory, for_summary):
    poolers = build(style, 3)
    memory, summary = poolers(noise(2, 7, 10))
    for out, expected in ((memory.tokens, for_memory), (summary, for_summary)):
        queries = poolers.caption.queries
        gradient = torch.autograd.grad(
            (out**3).sum(), queries, retain_graph=True, allow_unused=True, materialize_grads=True
        )[0]
        assert (gradient != 0).any(dim=-1).tolist() == expected


@pytest.mark.parametrize(
    "style, num_queries, least",
    [(PoolerStyle.cascade, -1, 0), (PoolerStyle.parallel, -1, 0), (PoolerStyle.shared, 1, 2)],
)
def test_too_few_caption_queries_are_named(style, num_queries, least):
    with pytest.raises(ValueError, match=f"num_caption_queries must be at least {least}, got {num_queries}"):
        build(style, num_queries)
