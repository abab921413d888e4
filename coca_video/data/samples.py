"""What flows from the data to the model: one Sample, many collated into a Batch. Both check themselves."""

import hashlib
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from coca_video.data.bad_samples import BadSample
from coca_video.data.tokenizer import Tokenizer


@dataclass
class Sample:
    """A clip (or a picture: one frame) with its text; its frames, or the tokens they have been encoded to."""

    frames: Tensor | None  # uint8 't c h w'
    text: str
    key: str  # names the sample in messages: a path or a shard key
    labels: dict[str, str] = field(default_factory=dict)
    tokens: Tensor | None = None  # float 't n d', in place of frames
    group: str | None = None  # equal for texts that say the same; None: the text itself
    prompt: str = ""  # before the text: read, not to be written
    target: Tensor | None = None  # what a task's head shall say

    def __post_init__(self) -> None:
        if (self.frames is None) == (self.tokens is None):
            raise ValueError(f"{self.key}: a sample holds either frames or tokens")
        if self.frames is not None:
            self._check_frames()
        elif not self.tokens.is_floating_point() or self.tokens.ndim != 3:
            found = f"{self.tokens.dtype} {tuple(self.tokens.shape)}"
            raise ValueError(f"{self.key}: tokens must be float 't n d', got {found}")
        if not len(self.content):
            raise ValueError(f"{self.key}: a sample needs at least one frame")

    @property
    def content(self) -> Tensor:
        """'t ...': the frames, or their tokens."""
        return self.tokens if self.frames is None else self.frames

    def _check_frames(self) -> None:
        if self.frames.dtype != torch.uint8 or self.frames.ndim != 4 or self.frames.shape[1] != 3:
            found = f"{self.frames.dtype} {tuple(self.frames.shape)}"
            raise ValueError(f"{self.key}: frames must be uint8 't c h w' with c = 3, got {found}")


@dataclass
class Batch:
    """Of clips whose frames are yet to be encoded, or (`frames` is None) of their tokens."""

    frames: Tensor | None  # uint8 'b t c h w', zeros where frame_mask is False
    frame_mask: Tensor  # bool 'b t', True = real
    ids: Tensor  # int 'b l'
    text_mask: Tensor  # bool 'b l', True = real
    groups: Tensor  # int64 'b': a hash of each sample's group, the same in every process
    keys: list[str]
    tokens: Tensor | None = None  # float 'b t n d', zeros where frame_mask is False
    rows: list[int] = field(default_factory=list)  # the samples' places in the batch of all processes
    bad: list[BadSample] = field(default_factory=list)  # what could not be read, and is not in the batch
    is_filler: bool = False  # one black frame where a process has no sample: its loss must not count
    prompt_mask: Tensor | None = None  # bool 'b l': the tokens of the prompt, `begin` included; None: no task
    targets: Tensor | None = None  # 'b ...'; None: no task

    def __post_init__(self) -> None:
        if (self.frames is None) == (self.tokens is None):
            raise ValueError("a batch holds either frames or tokens")
        b, t = (self.tokens if self.frames is None else self.frames).shape[:2]
        shapes = {"frame_mask": (b, t), "text_mask": tuple(self.ids.shape), "groups": (b,)}
        if self.prompt_mask is not None:
            shapes["prompt_mask"] = shapes["text_mask"]
        for name, expected in shapes.items():
            if tuple(getattr(self, name).shape) != expected:
                raise ValueError(f"{name} must be {expected}, got {tuple(getattr(self, name).shape)}")
        if len(self.ids) != b or len(self.keys) != b:
            raise ValueError(f"{b} clips, but {len(self.ids)} texts and {len(self.keys)} keys")

    def __len__(self) -> int:
        return len(self.frame_mask)

    @property
    def num_real(self) -> int:
        """Samples, of which a filler has none."""
        return 0 if self.is_filler else len(self)

    @property
    def num_seen(self) -> int:
        """Samples, with those that could not be read."""
        return self.num_real + len(self.bad)

    def to(self, device: torch.device) -> "Batch":
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return Batch(**{k: v.to(device) if isinstance(v, Tensor) else v for k, v in moved.items()})


def collate(samples: list[Sample], tokenizer: Tokenizer, *, max_length: int) -> Batch:
    """Pads clips to the longest in time; all samples must hold frames of one size, or all tokens."""
    content, frame_mask = pad_frames([sample.content for sample in samples])
    is_encoded = samples[0].tokens is not None
    texts, prompts = [sample.text for sample in samples], [sample.prompt for sample in samples]
    has_task = samples[0].target is not None
    ids, text_mask, prompt_mask = tokenizer.encode_prompted(prompts, texts, max_length=max_length)
    groups = [sample.text if sample.group is None else sample.group for sample in samples]
    return Batch(
        None if is_encoded else content,
        frame_mask,
        ids,
        text_mask,
        torch.tensor([text_hash(group) for group in groups]),
        keys=[sample.key for sample in samples],
        tokens=content if is_encoded else None,
        prompt_mask=prompt_mask if has_task else None,
        targets=torch.stack([sample.target for sample in samples]) if has_task else None,
    )


def text_hash(text: str) -> int:
    """Signed, of 64 bits: the same wherever it is computed, and of different texts different."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def pad_frames(clips: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Frames or tokens 't ...' of any lengths -> 'b t ...', zeros behind them, and frame_mask bool 'b t'."""
    longest = max(len(clip) for clip in clips)
    frames = clips[0].new_zeros(len(clips), longest, *clips[0].shape[1:])
    mask = torch.zeros(len(clips), longest, dtype=torch.bool)
    for i, clip in enumerate(clips):
        frames[i, : len(clip)] = clip
        mask[i, : len(clip)] = True
    return frames, mask
