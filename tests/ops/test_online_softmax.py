from functools import reduce
from itertools import permutations

import pytest
import reference
import torch
from tiny import noise

from coca_video.ops.attention import Backend, attend
from coca_video.ops.online_softmax import PartialAttention, partial_attention

BATCH, NUM_QUERIES, NUM_KEYS, HEADS, SIZE = 2, 5, 7, 3, 4
CHUNKS = [(7,), (3, 1, 3), (1,) * 7]
MASK = torch.tensor([[0, 0, 0, 1, 0, 1, 1], [1, 0, 1, 1, 1, 0, 0]], dtype=torch.bool)  # begins with nothing
NOTHING = torch.zeros(BATCH, NUM_KEYS, dtype=torch.bool)

every_mask = pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])


def queries_keys_values() -> tuple[torch.Tensor, ...]:
    lengths = (NUM_QUERIES, NUM_KEYS, NUM_KEYS)
    return tuple(noise(BATCH, length, HEADS, SIZE, seed=i) for i, length in enumerate(lengths))


def parts(q, k, v, mask=None, chunks=(3, 1, 3)) -> list[PartialAttention]:
    masks = [None] * len(chunks) if mask is None else mask.split(chunks, dim=1)
    keys_values = zip(k.split(chunks, dim=1), v.split(chunks, dim=1), masks)
    return [partial_attention(q, *part, mask=visible) for *part, visible in keys_values]


def in_chunks(q, k, v, mask=None, chunks=(3, 1, 3)) -> torch.Tensor:
    return reduce(PartialAttention.merge, parts(q, k, v, mask, chunks)).finish()


@every_mask
@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
def test_merged_parts_are_the_whole(chunks, mask):
    visible = torch.ones_like(MASK) if mask is None else mask
    reference.assert_equal_with_gradients(
        lambda *qkv: in_chunks(*qkv, mask, chunks),
        lambda *qkv: reference.attend(*qkv, visible.unsqueeze(1).expand(-1, NUM_QUERIES, -1)),
        *queries_keys_values(),
    )


@every_mask
def test_parts_merge_in_any_order(mask):
    qkv = queries_keys_values()
    expected = attend(*qkv, mask=mask, backend=Backend.naive)
    for a, b, c in permutations(parts(*qkv, mask)):
        for merged in (a.merge(b).merge(c), a.merge(b.merge(c))):
            torch.testing.assert_close(merged.finish(), expected, atol=1e-5, rtol=0)


def test_a_query_that_has_seen_nothing_gives_zeros_with_zero_gradients():
    qkv = queries_keys_values()
    out = in_chunks(*qkv, NOTHING)
    assert (out == 0).all()
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(out.sum(), qkv))


@pytest.mark.parametrize("scale", [1e3, -1e3])
def test_scores_beyond_the_range_of_exp(scale):
    """Merging multiplies by exp of a difference, whichever part has the larger score."""
    q, k, v = queries_keys_values()
    k = k + scale * torch.arange(NUM_KEYS).view(1, -1, 1, 1)
    expected = attend(q, k, v, mask=MASK, backend=Backend.naive)
    torch.testing.assert_close(in_chunks(q, k, v, MASK), expected, atol=1e-5, rtol=0)


def test_queries_of_batch_1_read_every_memory():
    q, k, v = queries_keys_values()
    reference.assert_equal_with_gradients(
        lambda q, k, v: in_chunks(q[:1], k, v, MASK),
        lambda q, k, v: attend(q[:1].expand(BATCH, -1, -1, -1), k, v, mask=MASK),
        *(q, k, v),
    )


def test_many_parts_of_low_precision_are_summed_in_float32():
    q, k = torch.zeros(1, 1, 1, 1, dtype=torch.bfloat16), torch.zeros(1, 1024, 1, 1, dtype=torch.bfloat16)
    part = reduce(PartialAttention.merge, parts(q, k, k + 0.5, chunks=(1,) * 1024))
    assert part.total.dtype == torch.float32 and part.total.item() == 1024
    assert part.finish().item() == 0.5
