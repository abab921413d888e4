import pytest
import reference
import torch
from tiny import noise

from coca_video.ops.attention import Backend, attend, attention_weights

BATCH, HEADS, SIZE = 2, 3, 4


def random_mask(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.6


# name: queries, keys, mask, causal
CASES = {
    "plain": (5, 7, None, False),
    "one query": (1, 7, None, False),
    "mask of the keys": (5, 7, random_mask(BATCH, 7), False),
    "mask of query and key": (5, 7, random_mask(BATCH, 5, 7), False),
    "causal": (7, 7, None, True),
    "causal after a cache": (3, 7, None, True),
    "causal, one query after a cache": (1, 7, None, True),
    "causal, fewer keys than queries": (7, 5, None, True),
    "causal, mask of the keys": (7, 7, random_mask(BATCH, 7), True),
    "causal after a cache, mask of query and key": (3, 7, random_mask(BATCH, 3, 7), True),
}


def visible_keys(num_queries: int, num_keys: int, mask: torch.Tensor | None, causal: bool) -> torch.Tensor:
    """'b l s', entry by entry: the last query stands at the last key."""
    visible = torch.ones(BATCH, num_queries, num_keys, dtype=torch.bool)
    for b in range(BATCH):
        for i in range(num_queries):
            for j in range(num_keys):
                allowed = mask is None or bool(mask[b, j] if mask.ndim == 2 else mask[b, i, j])
                visible[b, i, j] = allowed and (not causal or num_queries - 1 - i <= num_keys - 1 - j)
    return visible


def queries_keys_values(num_queries: int, num_keys: int) -> tuple[torch.Tensor, ...]:
    lengths = (num_queries, num_keys, num_keys)
    return tuple(noise(BATCH, length, HEADS, SIZE, seed=i) for i, length in enumerate(lengths))


@pytest.mark.parametrize("backend", [Backend.sdpa, Backend.naive, Backend.auto])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_reference(case, backend):
    num_queries, num_keys, mask, causal = CASES[case]
    visible = visible_keys(num_queries, num_keys, mask, causal)
    reference.assert_equal_with_gradients(
        lambda q, k, v: attend(q, k, v, mask=mask, causal=causal, backend=backend),
        lambda q, k, v: reference.attend(q, k, v, visible),
        *queries_keys_values(num_queries, num_keys),
    )


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
@pytest.mark.parametrize("backend", [Backend.sdpa, Backend.naive, Backend.auto])
@pytest.mark.parametrize("case", CASES)
def test_counted_keys_are_repeated_keys(case, backend, dtype):
    num_queries, num_keys, mask, causal = CASES[case]
    counts, visible = random_counts(num_keys), visible_keys(num_queries, num_keys, mask, causal)
    reference.assert_equal_with_gradients(
        lambda q, k, v: attend(
            q, k, v, mask=mask, causal=causal, key_counts=counts.to(dtype), backend=backend
        ),
        lambda q, k, v: with_repeated_keys(q, k, v, visible, counts),
        *queries_keys_values(num_queries, num_keys),
    )


def random_counts(num_keys: int) -> torch.Tensor:
    """'b s', from 1 to 4."""
    return torch.randint(1, 5, (BATCH, num_keys), generator=torch.Generator().manual_seed(2))


def with_repeated_keys(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, visible: torch.Tensor, counts: torch.Tensor
) -> torch.Tensor:
    """Every key and value stands there as often as its count says."""
    clips = []
    for b in range(BATCH):
        repeated = (x[b].repeat_interleave(counts[b], dim=0).unsqueeze(0) for x in (k, v))
        seen = visible[b].repeat_interleave(counts[b], dim=1).unsqueeze(0)
        clips.append(reference.attend(q[b : b + 1], *repeated, seen))
    return torch.cat(clips)


@pytest.mark.parametrize("backend", [Backend.sdpa, Backend.naive])
@pytest.mark.parametrize("causal", [False, True])
def test_a_query_without_a_visible_key_gives_zeros(backend, causal):
    q, k, v = queries_keys_values(5, 5)
    mask = torch.ones(BATCH, 5, 5, dtype=torch.bool)
    mask[0, 2] = False
    out = attend(q, k, v, mask=mask, causal=causal, backend=backend)
    assert (out[0, 2] == 0).all() and (out[1, 2] != 0).all() and (out[0, 1] != 0).all()
    for gradient in torch.autograd.grad(out[0, 2].sum(), (q, k, v), retain_graph=True):
        assert (gradient == 0).all()
    for gradient in torch.autograd.grad(out.sum(), (q, k, v)):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("backend", [Backend.sdpa, Backend.naive])
def test_a_clip_without_any_visible_key_leaves_the_others_alone(backend):
    q, k, v = queries_keys_values(3, 5)
    mask = torch.tensor([[False] * 5, [True] * 5])
    out = attend(q, k, v, mask=mask, backend=backend)
    assert (out[0] == 0).all()
    torch.testing.assert_close(out[1:], attend(q[1:], k[1:], v[1:], backend=backend))


def test_causal_after_a_cache_is_the_end_of_the_whole():
    q, k, v = queries_keys_values(7, 7)
    whole = attend(q, k, v, causal=True)
    torch.testing.assert_close(attend(q[:, -2:], k, v, causal=True), whole[:, -2:])


@pytest.mark.parametrize("case", ["plain", "mask of the keys", "mask of query and key", "a row without keys"])
def test_the_weights_are_what_attend_multiplies_by(case):
    """With the identity as values, what comes out are the weights."""
    if case == "a row without keys":
        mask = random_mask(BATCH, 5, 7)
        mask[0, 2] = False
    else:
        mask = CASES[case][2]
    identity = torch.eye(7).view(1, 7, 1, 7).expand(BATCH, 7, HEADS, 7)
    reference.assert_equal_with_gradients(
        lambda q, k: attention_weights(q, k, mask=mask),
        lambda q, k: attend(q, k, identity, mask=mask).transpose(1, 2),
        noise(BATCH, 5, HEADS, 7),
        noise(BATCH, 7, HEADS, 7, seed=1),
    )


def test_weights_sum_to_one_or_nothing():
    q, k, _ = queries_keys_values(5, 7)
    mask = random_mask(BATCH, 5, 7)
    mask[0, 2] = False
    weights = attention_weights(q, k, mask=mask)
    hidden = ~mask.unsqueeze(1).expand(BATCH, HEADS, 5, 7)
    assert weights.shape == hidden.shape and (weights[hidden] == 0).all() and (weights[~hidden] > 0).all()
    expected = mask.any(dim=-1).float().unsqueeze(1).expand(BATCH, HEADS, 5)
    torch.testing.assert_close(weights.sum(dim=-1), expected)


def test_xformers_refuses_the_cpu():
    q, k, v = queries_keys_values(3, 3)
    with pytest.raises(ValueError, match="xformers backend needs CUDA tensors, got cpu; use sdpa or naive"):
        attend(q, k, v, backend=Backend.xformers)


@pytest.mark.parametrize(
    "k_shape, v_shape",
    [((2, 7, 3, 5), (2, 7, 3, 5)), ((2, 7, 3, 4), (2, 6, 3, 4)), ((1, 7, 3, 4), (1, 7, 3, 4))],
)
def test_shapes_that_do_not_fit_are_named(k_shape, v_shape):
    with pytest.raises(ValueError) as error:
        attend(torch.zeros(2, 5, 3, 4), torch.zeros(k_shape), torch.zeros(v_shape))
    assert all(str(shape) in str(error.value) for shape in ((2, 5, 3, 4), k_shape, v_shape))


@pytest.mark.parametrize(
    "mask, found",
    [
        (torch.ones(2, 5, dtype=torch.bool), r"torch.bool \(2, 5\)"),
        (torch.ones(2, 1, 7, dtype=torch.bool), r"torch.bool \(2, 1, 7\)"),
        (torch.ones(2, 7), r"torch.float32 \(2, 7\)"),
    ],
)
def test_a_mask_that_does_not_fit_is_named(mask, found):
    q, k, v = queries_keys_values(5, 7)
    with pytest.raises(ValueError, match=rf"bool of shape \(2, 7\) or \(2, 5, 7\), got {found}"):
        attend(q, k, v, mask=mask)


def test_counts_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"key_counts must be of shape \(2, 7\), got \(2, 5\)"):
        attend(*queries_keys_values(5, 7), key_counts=torch.ones(2, 5))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_xformers_equals_naive(case, counted):
    pytest.importorskip("xformers")
    num_queries, num_keys, mask, causal = CASES[case]
    mask = None if mask is None else mask.cuda()
    counts = random_counts(num_keys).cuda() if counted else None
    inputs = [x.detach().cuda().requires_grad_() for x in queries_keys_values(num_queries, num_keys)]
    settings = {"mask": mask, "causal": causal, "key_counts": counts}
    reference.assert_equal_with_gradients(
        lambda q, k, v: attend(q, k, v, **settings, backend=Backend.xformers),
        lambda q, k, v: attend(q, k, v, **settings, backend=Backend.naive),
        *inputs,
        atol=1e-4,  # its kernels multiply in three TF32 passes
    )
