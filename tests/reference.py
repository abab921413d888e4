"""Plain references: each formula as loops over single rows, to hold the fast code against."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def assert_equal_with_gradients(fast: Callable, plain: Callable, *inputs: Tensor, atol: float = 1e-5) -> None:
    """Both give the same result for `inputs`, and the same gradient of it in each of them."""
    ours, theirs = fast(*inputs), plain(*inputs)
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(0)).to(ours.device)
    gradients = [torch.autograd.grad((out * weight).sum(), inputs) for out in (ours, theirs)]
    for our, their in zip((ours, *gradients[0]), (theirs, *gradients[1])):
        largest = max(1.0, their.abs().max().item())  # a gradient that sums many terms rounds at their size
        torch.testing.assert_close(our, their, atol=atol * largest, rtol=0)


def attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """q 'b l heads d', k and v 'b s heads d', visible bool 'b l s' -> 'b l heads d'."""

    def one(b: int, i: int, head: int) -> Tensor:
        seen = [j for j in range(k.shape[1]) if visible[b, i, j]]
        if not seen:
            return 0 * q[b, i, head]
        scores = [(q[b, i, head] * k[b, j, head]).sum() / q.shape[-1] ** 0.5 for j in seen]
        weights = [score.exp() for score in scores]
        return sum(weight * v[b, j, head] for weight, j in zip(weights, seen)) / sum(weights)

    b, l, heads, _ = q.shape
    clips = [[torch.stack([one(n, i, head) for head in range(heads)]) for i in range(l)] for n in range(b)]
    return torch.stack([torch.stack(rows) for rows in clips])


def multi_head(attention: nn.Module, x: Tensor, memory: Tensor, visible: Tensor) -> Tensor:
    """A MultiHeadAttention's result: x 'b l d', memory 'b s d_memory', visible bool 'b l s' -> 'b l d'."""
    width = x.shape[-1]
    size = width // attention.num_heads

    def split(y: Tensor) -> Tensor:
        return torch.stack([y[..., i : i + size] for i in range(0, width, size)], dim=2)

    inputs = ((x, attention.query), (memory, attention.key), (memory, attention.value))
    heads = attend(*(split(linear(y, module)) for y, module in inputs), visible)
    joined = torch.cat([heads[:, :, i] for i in range(attention.num_heads)], dim=-1)
    return linear(joined, attention.out)


def pooler(module: nn.Module, tokens: Tensor, visible: Tensor) -> Tensor:
    """An AttentionalPooler's result: tokens 'b n d_memory', visible bool 'b n' -> 'b q d'."""
    queries = torch.stack([layer_norm(module.queries, module.norm_queries)] * len(tokens))
    seen = torch.stack([visible] * queries.shape[1], dim=1)
    return layer_norm(
        multi_head(module.attention, queries, layer_norm(tokens, module.norm_tokens), seen), module.norm_out
    )


def linear(x: Tensor, module: nn.Linear) -> Tensor:
    return x @ module.weight.T + module.bias


def layer_norm(x: Tensor, module: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / ((centred**2).mean(dim=-1, keepdim=True) + 1e-5).sqrt() * module.weight + module.bias


def contrastive_loss(video: Tensor, text: Tensor, scale: Tensor, groups: Sequence[int]) -> Tensor:
    """Each clip must find its texts and each text its clips; those of one group are all right answers."""
    losses = []
    for ours, theirs in ((video, text), (text, video)):
        for i, group in enumerate(groups):
            scores = [scale * (ours[i] * other).sum() for other in theirs]
            log_sum = sum(score.exp() for score in scores).log()
            right = [score for score, other in zip(scores, groups) if other == group]
            losses.append(sum(log_sum - score for score in right) / len(right))
    return sum(losses) / len(losses)


def caption_loss(logits: Tensor, ids: Tensor, mask: Tensor, label_smoothing: float) -> Tensor:
    losses = []
    for row, row_ids, row_mask in zip(logits, ids, mask):
        for scores, token, real in zip(row, row_ids[1:], row_mask[1:]):
            if real:
                surprises = scores.exp().sum().log() - scores
                losses.append((1 - label_smoothing) * surprises[token] + label_smoothing * surprises.mean())
    return sum(losses) / len(losses)


def ranks(similarity: Tensor, targets: Tensor) -> list[int]:
    return [
        sum(1 for j, score in enumerate(row) if j != target and score >= row[target])
        for row, target in zip(similarity.tolist(), targets.tolist())
    ]


def recall(rank: list[int], k: int) -> float:
    return 100 * sum(1 for r in rank if r < k) / len(rank)
