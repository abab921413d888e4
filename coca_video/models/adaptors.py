"""From pictures to video: VideoCoCa's four ways to use an image CoCa on clips (arXiv 2212.04979).

Each is a module of its own new weights, `encode` for frames -> tokens and `pool` for tokens -> what the two
losses read. A clip's embedding is the mean of its summaries' unit embeddings, one summary a clip or a frame.
Padding frames change nothing.
"""

from dataclasses import dataclass
from enum import Enum

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from coca_video.layers.positions import TimePositions
from coca_video.layers.transformer import Block, init_linears
from coca_video.models.image_encoder import ImageEncoder
from coca_video.models.poolers import Poolers
from coca_video.models.text_decoder import Memory


class Adaptor(str, Enum):
    attentional = "attentional"  # the poolers read the tokens of all frames (VideoCoCa's choice)
    factorised = "factorised"  # a temporal transformer over the frames' summaries
    joint = "joint"  # the image encoder itself attends over all frames' tokens
    mean = "mean"  # the mean of the frames' embeddings and memories


@dataclass
class TemporalConfig:
    adaptor: Adaptor = Adaptor.attentional
    num_positions: int = 0  # frames with a learned position of their own; 0 = frames are a set
    num_layers: int = 4  # of the factorised adaptor's temporal transformer

    def __post_init__(self) -> None:
        if self.num_positions < 0 or self.num_layers < 1:
            found = f"{self.num_positions} and {self.num_layers}"
            raise ValueError(f"num_positions must not be negative and num_layers at least 1, got {found}")
        if self.adaptor is Adaptor.mean and self.num_positions:
            found = f"num_positions {self.num_positions}"
            raise ValueError(f"the mean adaptor knows no order of frames, got {found}")


@dataclass
class Pooled:
    memory: Memory
    summaries: Tensor  # 'b s d'
    summary_mask: Tensor  # bool 'b s', True = real


class FrameByFrame(nn.Module):
    """Adaptors that leave the image encoder as it is: a frame's tokens depend on that frame alone."""

    encodes_frames_alone = True

    def encode(self, encoder: ImageEncoder, frames: Tensor, frame_mask: Tensor | None) -> Tensor:
        """'b t c h w', bool 'b t' -> 'b t n d'."""
        return _each_real_frame(encoder, frames, frame_mask)

    def pool(self, poolers: Poolers, tokens: Tensor, frame_mask: Tensor | None) -> Pooled:
        """tokens: 'b t n d', frame_mask: bool 'b t' (None = all real)."""
        raise NotImplementedError


class AttentionalPooling(FrameByFrame):
    """All frames' tokens, flattened into the poolers as they are."""

    def __init__(self, image_width: int, *, num_positions: int):
        super().__init__()
        self.positions = TimePositions(num_positions, image_width) if num_positions else None

    def pool(self, poolers: Poolers, tokens: Tensor, frame_mask: Tensor | None) -> Pooled:
        if self.positions is not None:
            tokens = self.positions(tokens, frame_mask)
        return _pooled_together(poolers, tokens, frame_mask)


class JointSpaceTime(nn.Module):
    """The image encoder's blocks attend over the tokens of all frames together; so do the poolers."""

    encodes_frames_alone = False

    def __init__(self, image_width: int, *, num_positions: int):
        super().__init__()
        self.positions = TimePositions(num_positions, image_width) if num_positions else None

    def encode(self, encoder: ImageEncoder, frames: Tensor, frame_mask: Tensor | None) -> Tensor:
        tokens = _each_real_frame(encoder.embed, frames, frame_mask)
        if self.positions is not None:
            tokens = self.positions(tokens, frame_mask)
        encoded = encoder.encode(*_flattened(tokens, frame_mask))
        return rearrange(encoded, "b (t n) d -> b t n d", t=frames.shape[1])

    def pool(self, poolers: Poolers, tokens: Tensor, frame_mask: Tensor | None) -> Pooled:
        return _pooled_together(poolers, tokens, frame_mask)


class MeanPooling(FrameByFrame):
    """The mean of the frames' embeddings, and of their caption memories; no new weights."""

    def pool(self, poolers: Poolers, tokens: Tensor, frame_mask: Tensor | None) -> Pooled:
        memories, summaries = _pooled_singly(poolers, tokens)
        real = _real_frames(tokens, frame_mask)
        return Pooled(Memory(masked_mean(memories, real)), summaries, real)


class Factorised(FrameByFrame):
    """A temporal transformer over the frames' summaries: its tokens are the caption memory and the summaries.

    Its blocks begin as the identity (their outputs are zero) and so do the time positions: at first, a clip's
    embedding is the mean of its frames'.
    """

    def __init__(self, width: int, num_heads: int, mlp_width: int, *, num_layers: int, num_positions: int):
        super().__init__()
        self.positions = TimePositions(num_positions, width) if num_positions else None
        self.blocks = nn.ModuleList(Block(width, num_heads, mlp_width) for _ in range(num_layers))
        init_linears(self)
        for block in self.blocks:
            nn.init.zeros_(block.self_attention.out.weight)
            nn.init.zeros_(block.mlp.out.weight)

    def pool(self, poolers: Poolers, tokens: Tensor, frame_mask: Tensor | None) -> Pooled:
        _, x = _pooled_singly(poolers, tokens)
        if self.positions is not None:
            x = self.positions(x.unsqueeze(2), frame_mask).squeeze(2)
        for block in self.blocks:
            x = block(x, mask=frame_mask)
        return Pooled(Memory(x, frame_mask), x, _real_frames(tokens, frame_mask))


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """'b t ...' and bool 'b t' -> 'b ...', the mean over the real t."""
    weight = mask.to(x.dtype) / mask.sum(dim=1, keepdim=True)
    return torch.einsum("bt...,bt->b...", x, weight)


def _each_real_frame(encode, frames: Tensor, frame_mask: Tensor | None) -> Tensor:
    """encode: 'b c h w' -> 'b n d'; padding frames are not encoded, their tokens are zero: 'b t n d'."""
    if frame_mask is None:
        tokens = encode(rearrange(frames, "b t c h w -> (b t) c h w"))
        return rearrange(tokens, "(b t) n d -> b t n d", t=frames.shape[1])
    real = encode(frames[frame_mask])
    tokens = real.new_zeros(*frame_mask.shape, *real.shape[1:])
    tokens[frame_mask] = real
    return tokens


def _flattened(tokens: Tensor, frame_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """'b t n d' and bool 'b t' -> 'b (t n) d' and bool 'b (t n)'."""
    mask = None if frame_mask is None else repeat(frame_mask, "b t -> b (t n)", n=tokens.shape[2])
    return rearrange(tokens, "b t n d -> b (t n) d"), mask


def _pooled_together(poolers: Poolers, tokens: Tensor, frame_mask: Tensor | None) -> Pooled:
    memory, summary = poolers(*_flattened(tokens, frame_mask))
    return Pooled(memory, summary.unsqueeze(1), summary.new_ones(len(summary), 1, dtype=torch.bool))


def _pooled_singly(poolers: Poolers, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """'b t n d' -> each frame's caption memory 'b t q d' and summary 'b t d'."""
    memory, summary = poolers(rearrange(tokens, "b t n d -> (b t) n d"))
    num_frames = tokens.shape[1]
    memories = rearrange(memory.tokens, "(b t) q d -> b t q d", t=num_frames)
    return memories, rearrange(summary, "(b t) d -> b t d", t=num_frames)


def _real_frames(tokens: Tensor, frame_mask: Tensor | None) -> Tensor:
    """bool 'b t'."""
    return tokens.new_ones(tokens.shape[:2], dtype=torch.bool) if frame_mask is None else frame_mask
