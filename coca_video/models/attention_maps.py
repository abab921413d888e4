"""Where a model looked in a clip: its attention weights, traced back from the outputs to the patches.

Each step is averaged over its heads, and steps are multiplied along the way: text position -> memory token
-> image token. What the image encoder and the temporal transformer mix among their own tokens is not traced:
a token stands for the place that it began as.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from coca_video.layers.pooler import AttentionalPooler
from coca_video.layers.transformer import MultiHeadAttention
from coca_video.models.adaptors import Adaptor, masked_mean
from coca_video.models.coca import CoCa
from coca_video.models.poolers import Poolers, PoolerStyle

Attention = MultiHeadAttention | AttentionalPooler
Weights = dict[Attention, Tensor]  # of each module's last call: 'b l s', the mean over its heads


@dataclass
class AttentionMaps:
    """Shares of attention on each patch, h x w of them a frame.

    They sum to 1 over 't h w', less what went to class tokens; padding frames hold zero.
    """

    embedding: Tensor  # 'b t h w', of the video embedding
    tokens: Tensor  # 'b l t h w': position i predicts token i + 1; zero where the text is padding

    def caption(self, text_mask: Tensor) -> Tensor:
        """text_mask: bool 'b l', the positions to average -> 'b t h w'."""
        return masked_mean(self.tokens, text_mask)


@torch.inference_mode()
def attention_maps(
    model: CoCa,
    frames: Tensor,
    ids: Tensor,
    text_mask: Tensor,
    frame_mask: Tensor | None = None,
    *,
    layer: int | None = None,
) -> AttentionMaps:
    """Inputs as of the model's forward: frames 'b t c h w', ids and text_mask 'b l', frame_mask 'b t'.

    layer: of the multimodal decoder's cross-attention, 0 is the first; None = the mean over all.
    Raises ValueError for a layer that the model has not, or a text longer than its context.
    """
    cross = [block.cross_attention for block in model.multimodal.blocks if block.cross_attention is not None]
    _check(model, ids, layer=layer, num_layers=len(cross))
    poolers = [pooler for pooler in (model.poolers.caption, model.poolers.contrastive) if pooler is not None]
    with recorded_weights([*cross, *poolers]) as weights:
        memory, _ = model.pool(model.encode_frames(frames, frame_mask), frame_mask)
        model.caption_logits(memory, ids)
    real = frames.new_ones(frames.shape[:2], dtype=torch.bool) if frame_mask is None else frame_mask
    memory, embedding = _pooled_from(model, weights, real)
    chosen = cross if layer is None else [cross[layer]]
    read = sum(weights[attention] for attention in chosen) / len(chosen) * text_mask.unsqueeze(-1)
    tokens = torch.einsum("blq,bqtn->bltn", read, memory)
    num_class_tokens = model.image_encoder.num_class_tokens
    return AttentionMaps(_grid(embedding, num_class_tokens), _grid(tokens, num_class_tokens))


@contextmanager
def recorded_weights(attentions: Iterable[Attention]) -> Iterator[Weights]:
    """While open, every `attention(..., mask=...)` of these modules leaves its weights in it."""
    weights: Weights = {}

    def record(attention: Attention, inputs: tuple[Tensor, ...], settings: dict) -> None:
        weights[attention] = attention.weights(*inputs, mask=settings["mask"]).float().mean(dim=1)

    with ExitStack() as hooks:
        for attention in attentions:
            hooks.enter_context(attention.register_forward_pre_hook(record, with_kwargs=True))
        yield weights


def _pooled_from(model: CoCa, weights: Weights, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
    """What the memory's tokens 'b q t n' and the embedding 'b t n' were made from."""
    memory, summary = _poolers_read(model.poolers, weights)
    adaptor, num_frames = model.config.temporal.adaptor, frame_mask.shape[1]
    if adaptor in (Adaptor.attentional, Adaptor.joint):
        memory = rearrange(memory, "b q (t n) -> b q t n", t=num_frames)
        return memory, rearrange(summary, "b (t n) -> b t n", t=num_frames)
    share = frame_mask / frame_mask.sum(dim=1, keepdim=True)
    summaries = rearrange(summary, "(b t) n -> b t n", t=num_frames)
    embedding = torch.einsum("btn,bt->btn", summaries, share)
    if adaptor is Adaptor.factorised:  # the memory's token i is frame i's summary
        own = torch.eye(num_frames, device=summaries.device)
        return torch.einsum("qt,btn->bqtn", own, summaries), embedding
    memories = rearrange(memory, "(b t) q n -> b q t n", t=num_frames)
    return torch.einsum("bqtn,bt->bqtn", memories, share), embedding


def _poolers_read(poolers: Poolers, weights: Weights) -> tuple[Tensor, Tensor]:
    """What one call of the poolers took from its tokens: for the memory 'b q s', for the summary 'b s'."""
    if poolers.style is PoolerStyle.shared:
        both = weights[poolers.caption]
        return both[:, 1:], both[:, 0]
    summary = weights[poolers.contrastive]
    if poolers.caption is None:  # the memory is the tokens
        return torch.eye(summary.shape[2], device=summary.device).expand(len(summary), -1, -1), summary[:, 0]
    memory = weights[poolers.caption]
    if poolers.style is PoolerStyle.cascade:
        summary = summary @ memory
    return memory, summary[:, 0]


def _grid(shares: Tensor, num_class_tokens: int) -> Tensor:
    """'... n' -> '... h w', the patches alone."""
    patches = shares[..., num_class_tokens:]
    return rearrange(patches, "... (h w) -> ... h w", h=math.isqrt(patches.shape[-1]))  # pictures are square


def _check(model: CoCa, ids: Tensor, *, layer: int | None, num_layers: int) -> None:
    if layer is not None and not 0 <= layer < num_layers:
        raise ValueError(f"layer must be from 0 to {num_layers - 1}, got {layer}")
    if merged := model.image_encoder.merged_per_block:
        raise ValueError(f"attention maps need every patch in its place, got merged_per_block {merged}")
    context = model.config.text.context_length
    if ids.shape[1] > context:
        raise ValueError(f"texts must have at most {context} tokens, the model's context, got {ids.shape[1]}")
