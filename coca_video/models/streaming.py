"""Videos of any length, a few frames at a time: `CoCa.pool` of all frames from a state of fixed size."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from coca_video.models.adaptors import Adaptor
from coca_video.models.coca import CoCa, CoCaConfig
from coca_video.models.text_decoder import Memory
from coca_video.ops.online_softmax import PartialAttention


class VideoStream:
    """b videos whose frames are added in their order and then forgotten; without gradients.

    total_frames: real frames of the whole video, one number for all or one a video. Learned time positions
    are relative to it, and are computed for all of them in advance; other models do not need it.
    first_frame: where in its video the stream begins, to be merged with that of an earlier part.

    Raises ValueError for a model that needs all frames at once, or total_frames where it is not given.
    """

    def __init__(
        self,
        model: CoCa,
        *,
        batch_size: int = 1,
        total_frames: int | Sequence[int] | None = None,
        first_frame: int = 0,
    ):
        _check_streams(model.config, total_frames)
        self.model = model
        self.num_frames = model.heads.log_scale.new_zeros(batch_size, dtype=torch.long)  # 'b', real ones
        self._next_frame = first_frame
        self._positions = _time_positions(model, total_frames, batch_size)
        self._kind = _FrameSums if model.config.temporal.adaptor is Adaptor.mean else _PoolersRead
        self._state: _FrameSums | _PoolersRead | None = None

    @torch.no_grad()
    def add(self, frames: Tensor, frame_mask: Tensor | None = None) -> None:
        """The next frames 'b t c h w', normalised pixels; frame_mask: bool 'b t', True = real."""
        self._check_shapes(frames, frame_mask)
        self.add_tokens(self.model.encode_frames(frames, frame_mask), frame_mask)

    @torch.no_grad()
    def add_tokens(self, tokens: Tensor, frame_mask: Tensor | None = None) -> None:
        """The next frames as `CoCa.encode_frames` gives them: 'b t n d', bool 'b t'."""
        self._check_shapes(tokens, frame_mask)
        if frame_mask is None:
            frame_mask = tokens.new_ones(tokens.shape[:2], dtype=torch.bool)
        self._take(self._kind.read(self.model, self._placed(tokens), frame_mask))
        self._next_frame += tokens.shape[1]
        self.num_frames += frame_mask.sum(dim=1)

    @torch.no_grad()
    def merge(self, other: "VideoStream") -> None:
        """Adds all that the other stream has seen: another part of the same videos, by the same model."""
        if other.model is not self.model or len(other.num_frames) != len(self.num_frames):
            found = f"{len(self.num_frames)} and {len(other.num_frames)} videos"
            raise ValueError(f"streams must be of one model and of as many videos, got {found}")
        if other._state is not None:
            self._take(other._state)
        self.num_frames += other.num_frames
        self._next_frame = max(self._next_frame, other._next_frame)

    @torch.no_grad()
    def pooled(self) -> tuple[Memory, Tensor]:
        """Caption memory 'b q d' and unit video embedding 'b e' of the frames so far; more may follow."""
        if self._state is None:
            raise ValueError("a stream must have seen a frame to be pooled, got none")
        return self._state.pooled(self.model)

    def _take(self, state: "_FrameSums | _PoolersRead") -> None:
        self._state = state if self._state is None else self._state.merge(state)

    def _placed(self, tokens: Tensor) -> Tensor:
        """With their time positions, where the model has them."""
        if self._positions is None:
            return tokens
        end, total = self._next_frame + tokens.shape[1], self._positions.shape[1]
        if end > total:
            raise ValueError(f"a video of total_frames {total} has no more than these, got {end}")
        return tokens + self._positions[:, self._next_frame : end]

    def _check_shapes(self, frames: Tensor, frame_mask: Tensor | None) -> None:
        batch_size, shape = len(self.num_frames), tuple(frames.shape[:2])
        if shape[0] != batch_size:
            raise ValueError(f"a stream of batch_size {batch_size} takes as many videos, got {shape[0]}")
        if frame_mask is not None and (tuple(frame_mask.shape) != shape or frame_mask.dtype != torch.bool):
            found = f"{frame_mask.dtype} {tuple(frame_mask.shape)}"
            raise ValueError(f"frame_mask must be bool of shape {shape}, got {found}")


@dataclass
class _PoolersRead:
    """Attentional: what each pooler that reads image tokens has read."""

    reads: list[PartialAttention]

    @classmethod
    def read(cls, model: CoCa, tokens: Tensor, frame_mask: Tensor) -> "_PoolersRead":
        mask = repeat(frame_mask, "b t -> b (t n)", n=tokens.shape[2])
        tokens = rearrange(tokens, "b t n d -> b (t n) d")
        return cls([pooler.read(tokens, mask=mask) for pooler in model.poolers.readers])

    def merge(self, other: "_PoolersRead") -> "_PoolersRead":
        return _PoolersRead([ours.merge(theirs) for ours, theirs in zip(self.reads, other.reads)])

    def pooled(self, model: CoCa) -> tuple[Memory, Tensor]:
        finished = [pooler.finish(read) for pooler, read in zip(model.poolers.readers, self.reads)]
        memory, summary = model.poolers.combined(finished)
        return memory, F.normalize(model.heads.video(summary), dim=-1)


@dataclass
class _FrameSums:
    """Mean: sums over the real frames, each pooled as a picture; at least float32."""

    memories: Tensor  # 'b q d'
    embeddings: Tensor  # 'b e'
    num_frames: Tensor  # 'b'

    @classmethod
    def read(cls, model: CoCa, tokens: Tensor, frame_mask: Tensor) -> "_FrameSums":
        memory, embeddings = model.pool(rearrange(tokens, "b t n d -> (b t) 1 n d"))
        sums = (_sum_of_real(x, frame_mask) for x in (memory.tokens, embeddings))
        return cls(*sums, frame_mask.sum(dim=1))

    def merge(self, other: "_FrameSums") -> "_FrameSums":
        return _FrameSums(
            self.memories + other.memories,
            self.embeddings + other.embeddings,
            self.num_frames + other.num_frames,
        )

    def pooled(self, model: CoCa) -> tuple[Memory, Tensor]:
        dtype = model.heads.video.weight.dtype
        memory = self.memories / rearrange(self.num_frames, "b -> b 1 1")
        return Memory(memory.to(dtype)), F.normalize(self.embeddings, dim=-1).to(dtype)


def _sum_of_real(x: Tensor, frame_mask: Tensor) -> Tensor:
    """'(b t) ...' and bool 'b t' -> 'b ...'."""
    x = x.unflatten(0, frame_mask.shape).to(torch.promote_types(x.dtype, torch.float32))
    return torch.einsum("bt...,bt->b...", x, frame_mask.to(x.dtype))


def _time_positions(model: CoCa, total_frames: int | Sequence[int] | None, batch_size: int) -> Tensor | None:
    """'b t 1 d' for t = total_frames, None where the model has none."""
    positions = model.temporal.positions if model.config.temporal.num_positions else None
    if positions is None:
        return None
    totals = torch.as_tensor(total_frames)
    if totals.shape not in ((), (batch_size,)):
        raise ValueError(f"total_frames must be one number or {batch_size}, got {total_frames}")
    mask = torch.arange(int(totals.max())) < totals.expand(batch_size).unsqueeze(1)
    nothing = positions.table.new_zeros(*mask.shape, 1, positions.table.shape[1])
    with torch.no_grad():
        return positions(nothing, mask.to(nothing.device))


def _check_streams(config: CoCaConfig, total_frames: int | Sequence[int] | None) -> None:
    temporal = config.temporal
    if temporal.adaptor not in (Adaptor.attentional, Adaptor.mean):
        found = f"temporal.adaptor {temporal.adaptor.value}"
        raise ValueError(f"the adaptors attentional and mean can be streamed, got {found}")
    if temporal.adaptor is Adaptor.attentional and not config.num_caption_queries:
        raise ValueError("num_caption_queries must be at least 1 to be streamed, got 0: all tokens are kept")
    if temporal.num_positions and total_frames is None:
        found = f"num_positions {temporal.num_positions} and no total_frames"
        raise ValueError(f"learned time positions need the video's total_frames in advance, got {found}")
