"""What evaluations ask of a model, and a CoCa checkpoint that answers."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from coca_video.checkpoint import Checkpoint
from coca_video.data.examples import Prepare, Resized
from coca_video.data.token_cache import TokenCache
from coca_video.errors import InputError
from coca_video.evaluation.captioning import DecodingConfig, best_captions
from coca_video.evaluation.embedding import encode_clips, encode_texts, open_token_cache
from coca_video.models.text_decoder import Memory
from coca_video.tasks.task import Task

VIDEO, FIRST_FRAME, MEAN_OF_FRAMES = READINGS = ("video", "first_frame", "mean_of_frames")


@dataclass
class Encoded:
    """Of a batch of clips, on the CPU. A reading is one way to make a clip's embedding of its frames."""

    embeddings: dict[str, Tensor]  # by reading, unit length 'b e'
    memories: dict[str, Memory] = field(default_factory=dict)  # by reading, what captions are written from


class Subject(Protocol):
    """A model under evaluation."""

    readings: tuple[str, ...]  # of READINGS, the one that results lead with first
    writes_captions: bool
    scale: float  # of similarities, before a softmax over them
    prepare: Prepare  # called in other processes: it can be pickled
    cache: TokenCache | None  # where tokens in place of prepared frames are read, if any
    task: Task | None  # that the model has a head for

    def describe(self) -> dict[str, Any]:
        """What results say of the model: at least checkpoint, sha256 and trained_on; in JSON's terms."""

    def protocol(self) -> dict[str, Any]:
        """What results say of how it sees pictures: at least image_size and resize."""

    def encode(self, clips: list[Tensor], origins: list[dict | None]) -> Encoded:
        """Prepared clips; `origins` says what each was made from, None where nothing is kept of it."""

    def encode_texts(self, texts: list[str]) -> Tensor:
        """Unit embeddings 'n e' on the CPU."""

    def write(self, encoded: Encoded, decoding: DecodingConfig) -> dict[str, list[str]]:
        """By reading, a caption for each clip."""


class CocaSubject:
    """A CoCa checkpoint, whose model is on `device`.

    token_cache: a folder that keeps the image encoder's tokens, so that a second evaluation encodes nothing.
    task: what the checkpoint has learned (`tasks.catalogue.task_of`, which gives the model its head).
    Raises InputError if the model's adaptor, the joint one, encodes a clip's frames together.
    """

    readings = READINGS
    writes_captions = True

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        *,
        token_cache: str | None = None,
        task: Task | None = None,
    ):
        self.checkpoint, self.device, self.task = checkpoint, device, task
        model = checkpoint.model
        self.prepare = Resized(checkpoint.preprocessing, model.config.image.image_size)
        self.scale = model.heads.log_scale.exp().item()
        self.cache = _cache(checkpoint, token_cache) if token_cache else None

    def describe(self) -> dict[str, Any]:
        return {
            "checkpoint": str(self.checkpoint.path),
            "sha256": self._hash,
            "trained_on": self.checkpoint.trained_on,
            "adaptor": self.checkpoint.model.config.temporal.adaptor.value,
        }

    def protocol(self) -> dict[str, Any]:
        return {
            "image_size": self.prepare.size,
            "resize": self.checkpoint.preprocessing.resize.value,
            "merged_per_block": self.checkpoint.model.image_encoder.merged_per_block,
        }

    def encode(self, clips: list[Tensor], origins: list[dict | None]) -> Encoded:
        clips = self.through_cache(clips, origins)
        features = encode_clips(self.checkpoint, clips, device=self.device)
        memories = {VIDEO: features.video_memory, FIRST_FRAME: features.first_frame_memory}
        return Encoded({reading: getattr(features, reading) for reading in READINGS}, memories)

    def encode_texts(self, texts: list[str]) -> Tensor:
        return encode_texts(self.checkpoint, texts, device=self.device)

    def write(self, encoded: Encoded, decoding: DecodingConfig) -> dict[str, list[str]]:
        return {
            reading: best_captions(
                self.checkpoint, memory, encoded.embeddings[reading], device=self.device, decoding=decoding
            )
            for reading, memory in encoded.memories.items()
        }

    @torch.inference_mode()
    def through_cache(self, clips: list[Tensor], origins: list[dict | None]) -> list[Tensor]:
        """The tokens 't n d' of every clip, those of frames encoded and kept; without a cache the clips."""
        if self.cache is None:
            return clips
        new = [i for i, clip in enumerate(clips) if not clip.is_floating_point()]
        if new:
            frames = torch.cat([clips[i] for i in new]).to(self.device)
            tokens = self.checkpoint.model.image_encoder(self.checkpoint.preprocessing.normalised(frames))
            clips = list(clips)
            for i, encoded in zip(new, tokens.split([len(clips[i]) for i in new])):
                clips[i] = encoded.cpu()
                self.cache.put(origins[i], clips[i])
        return clips

    @cached_property
    def _hash(self) -> str:
        """Large files take seconds to read."""
        return self.checkpoint.hash


def _cache(checkpoint: Checkpoint, folder: str) -> TokenCache:
    model = checkpoint.model
    if not model.temporal.encodes_frames_alone:
        adaptor = model.config.temporal.adaptor.value
        raise InputError(f"evaluate.token_cache: the {adaptor} adaptor encodes a clip's frames together")
    return open_token_cache(model, folder)
