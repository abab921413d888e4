"""One attention call over three backends: torch SDPA, xformers (CUDA) and a plain reference.

Layout everywhere: queries 'b l heads d', keys and values 'b s heads d'. Masks are bool, True = visible.
A query with no visible key returns zeros, in every backend.
"""

import importlib
import importlib.util
from enum import Enum
from functools import cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


class Backend(str, Enum):
    auto = "auto"  # xformers on CUDA where it is installed, SDPA elsewhere
    sdpa = "sdpa"
    xformers = "xformers"
    naive = "naive"


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    key_counts: Tensor | None = None,
    backend: Backend = Backend.auto,
) -> Tensor:
    """softmax(q k^T / sqrt(d)) v.

    q: 'b l heads d'; k, v: 'b s heads d'; returns 'b l heads d'.
    mask: bool, 'b s' (which keys are real) or 'b l s' (which keys each query may see).
    causal: query i sees keys up to i + (s - l): the last query sees every key, which is what decoding
        with a cache of earlier keys needs.
    key_counts: positive 'b s', each key counts as if it stood there so many times, with its value.
    Raises ValueError where the shapes of q, k, v, mask or key_counts do not fit one another.
    """
    _check_shapes(q, k, v, mask)
    backend = chosen(backend, q)
    plainly_causal = causal and mask is None and key_counts is None and q.shape[1] == k.shape[1]
    visible = None if plainly_causal else _visible_keys(q, k, mask=mask, causal=causal)
    bias = None if key_counts is None else _log_counts(key_counts, k)
    if visible is None:
        return _BACKENDS[backend](q, k, v, bias, plainly_causal)
    # A row without any visible key would be a softmax over nothing (NaN, also in the gradient): such
    # rows attend to everything and their result is replaced by zeros.
    sees_something = visible.any(dim=-1, keepdim=True)
    shown = visible | ~sees_something
    if bias is not None:
        shown = torch.where(shown, bias, float("-inf"))
    out = _BACKENDS[backend](q, k, v, shown, False)
    return out * sees_something.unsqueeze(-1)


def chosen(backend: Backend, q: Tensor) -> Backend:
    """What `auto` stands for with these queries."""
    if backend is not Backend.auto:
        return backend
    return Backend.xformers if _xformers_serves(q) else Backend.sdpa


def attention_weights(q: Tensor, k: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """What `attend` multiplies the values by, 'b heads l s': a row sums to 1, or to 0 if it sees no key."""
    _check_shapes(q, k, k, mask)
    visible = _visible_keys(q, k, mask=mask, causal=False)
    scores = torch.einsum("blhd,bshd->bhls", q, k) * q.shape[-1] ** -0.5
    if visible is None:
        return scores.softmax(dim=-1)
    hidden = ~visible.unsqueeze(1)
    return scores.masked_fill(hidden, torch.finfo(scores.dtype).min).softmax(dim=-1).masked_fill(hidden, 0.0)


def _check_shapes(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> None:
    fits = k.shape == v.shape and q.shape[0] == k.shape[0] and q.shape[2:] == k.shape[2:]
    if not fits:
        shapes = ", ".join(str(tuple(x.shape)) for x in (q, k, v))
        raise ValueError(f"q, k, v must be 'b l heads d', 'b s heads d', 'b s heads d', got {shapes}")
    allowed = [(q.shape[0], k.shape[1]), (q.shape[0], q.shape[1], k.shape[1])]
    if mask is not None and (tuple(mask.shape) not in allowed or mask.dtype != torch.bool):
        found = f"{mask.dtype} {tuple(mask.shape)}"
        raise ValueError(f"mask must be bool of shape {allowed[0]} or {allowed[1]}, got {found}")


def _log_counts(key_counts: Tensor, k: Tensor) -> Tensor:
    """'b 1 s', to be added to the scores: exp(score + log n) = n exp(score)."""
    if key_counts.shape != k.shape[:2]:
        raise ValueError(f"key_counts must be of shape {tuple(k.shape[:2])}, got {tuple(key_counts.shape)}")
    return rearrange(key_counts.log().to(k.dtype), "b s -> b 1 s")


def _visible_keys(q: Tensor, k: Tensor, *, mask: Tensor | None, causal: bool) -> Tensor | None:
    """Both constraints as one bool tensor 'b l s' (or '1 l s'), None where nothing is hidden."""
    visible = mask if mask is None or mask.ndim == 3 else rearrange(mask, "b s -> b 1 s")
    if causal:
        ones = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool, device=q.device)
        lower = ones.tril(k.shape[1] - q.shape[1]).unsqueeze(0)
        visible = lower if visible is None else visible & lower
    return visible


# In the backends a mask 'b l s' is bool, or of q's type: what is added to the scores of all heads.


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    q, k, v = (rearrange(x, "b l heads d -> b heads l d") for x in (q, k, v))
    mask = None if mask is None else mask.unsqueeze(1)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    return rearrange(out, "b heads l d -> b l heads d")


def _naive(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    scores = torch.einsum("blhd,bshd->bhls", q, k) * q.shape[-1] ** -0.5
    if causal:
        mask = _visible_keys(q, k, mask=None, causal=True)
    if mask is not None:
        scores = scores + _as_bias(mask, q).unsqueeze(1)
    return torch.einsum("bhls,bshd->blhd", scores.softmax(dim=-1), v)


def _xformers_serves(q: Tensor) -> bool:
    """Its operator for masks ends at compute capability 9.0 (Hopper)."""
    return q.is_cuda and _xformers_installed() and torch.cuda.get_device_capability(q.device) <= (9, 0)


@cache
def _xformers_installed() -> bool:
    return importlib.util.find_spec("xformers") is not None


def _xformers(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    if not q.is_cuda:
        raise ValueError(f"the xformers backend needs CUDA tensors, got {q.device}; use sdpa or naive")
    # Imported here: it takes seconds, and has no operator for the CPU.
    ops = importlib.import_module("xformers.ops")
    bias = ops.LowerTriangularMask() if causal else _padded_bias(q, k, mask)
    return ops.memory_efficient_attention(q, k, v, attn_bias=bias)


def _padded_bias(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor | None:
    """'b heads l s', cut from rows padded to a multiple of 8 as xformers' kernels require."""
    if mask is None:
        return None
    (b, l, heads, _), s = q.shape, k.shape[1]
    padded = q.new_full((b, heads, l, -(-s // 8) * 8), float("-inf"))
    padded[..., :s] = _as_bias(mask, q).unsqueeze(1)
    return padded[..., :s]


def _as_bias(mask: Tensor, q: Tensor) -> Tensor:
    """A bool mask as 0 and -inf of q's type; what is added already stays."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, float("-inf"))


_BACKENDS = {Backend.sdpa: _sdpa, Backend.xformers: _xformers, Backend.naive: _naive}


def attend_blocks(q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
    """Causal self-attention within each of the sequences that stand one behind another, by xformers.

    q, k, v: 'n heads d' with n the sum of the lengths; returns 'n heads d'.
    """
    bias = importlib.import_module("xformers.ops.fmha.attn_bias").BlockDiagonalCausalMask
    ops = importlib.import_module("xformers.ops")
    q, k, v = (x.unsqueeze(0) for x in (q, k, v))
    return ops.memory_efficient_attention(q, k, v, attn_bias=bias.from_seqlens(lengths)).squeeze(0)
