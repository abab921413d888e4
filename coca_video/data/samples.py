"""What flows from the data to the model: one Sample, many collated into a Batch. Both check themselves."""

from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from coca_video.data.tokenizer import Tokenizer


@dataclass
class Sample:
    """A clip (or a picture: one frame) with its text."""

    frames: Tensor  # uint8 't c h w'
    text: str
    key: str  # names the sample in messages: a path or a shard key
    labels: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.frames.dtype != torch.uint8 or self.frames.ndim != 4 or self.frames.shape[1] != 3:
            found = f"{self.frames.dtype} {tuple(self.frames.shape)}"
            raise ValueError(f"{self.key}: frames must be uint8 't c h w' with c = 3, got {found}")
        if not len(self.frames):
            raise ValueError(f"{self.key}: a sample needs at least one frame")


@dataclass
class Batch:
    frames: Tensor  # uint8 'b t c h w', zeros where frame_mask is False
    frame_mask: Tensor  # bool 'b t', True = real
    ids: Tensor  # int 'b l'
    text_mask: Tensor  # bool 'b l', True = real
    groups: Tensor  # int 'b': equal for equal texts
    keys: list[str]

    def __post_init__(self) -> None:
        b, t = self.frames.shape[:2]
        shapes = {"frame_mask": (b, t), "text_mask": tuple(self.ids.shape), "groups": (b,)}
        for name, expected in shapes.items():
            if tuple(getattr(self, name).shape) != expected:
                raise ValueError(f"{name} must be {expected}, got {tuple(getattr(self, name).shape)}")
        if len(self.ids) != b or len(self.keys) != b:
            raise ValueError(f"{b} clips, but {len(self.ids)} texts and {len(self.keys)} keys")

    def __len__(self) -> int:
        return len(self.frames)

    def to(self, device: torch.device) -> "Batch":
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return Batch(**{k: v.to(device) if isinstance(v, Tensor) else v for k, v in moved.items()})


def collate(samples: list[Sample], tokenizer: Tokenizer, *, max_length: int) -> Batch:
    """Pads clips to the longest in time; all frames must have one size."""
    frames, frame_mask = pad_frames([sample.frames for sample in samples])
    texts = [sample.text for sample in samples]
    ids, text_mask = tokenizer.encode_batch(texts, max_length=max_length)
    first = {text: i for i, text in reversed(list(enumerate(texts)))}
    groups = torch.tensor([first[text] for text in texts])
    return Batch(frames, frame_mask, ids, text_mask, groups, keys=[sample.key for sample in samples])


def pad_frames(clips: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Clips 't c h w' of any lengths -> frames 'b t c h w' and frame_mask bool 'b t'."""
    longest = max(len(clip) for clip in clips)
    frames = clips[0].new_zeros(len(clips), longest, *clips[0].shape[1:])
    mask = torch.zeros(len(clips), longest, dtype=torch.bool)
    for i, clip in enumerate(clips):
        frames[i, : len(clip)] = clip
        mask[i, : len(clip)] = True
    return frames, mask
