"""Clips and texts through the model, once, for every figure made of them."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from coca_video.checkpoint import Checkpoint
from coca_video.data.samples import Sample, pad_frames


@dataclass
class ClipFeatures:
    """The views of clips that results set side by side."""

    video: Tensor  # 'b e': all frames' tokens pooled together (VideoCoCa)
    first_frame: Tensor  # 'b e': the first sampled frame as a picture
    mean_of_frames: Tensor  # 'b e': mean of the frames' embeddings as pictures, unit length (CoCa)
    video_memory: Tensor  # 'b q d': what captions are written from
    first_frame_memory: Tensor  # 'b q d'


@torch.inference_mode()
def encode_clips(
    checkpoint: Checkpoint, batches: Iterable[list[Sample]], *, device: torch.device
) -> ClipFeatures:
    """Samples, whose frames have the model's size, -> their features, in order, on the CPU."""
    parts = [_encode(checkpoint, batch, device) for batch in tqdm(batches, desc="clips", unit="batch")]
    return ClipFeatures(*(torch.cat(columns).cpu() for columns in zip(*parts)))


def _encode(checkpoint: Checkpoint, samples: list[Sample], device: torch.device) -> tuple[Tensor, ...]:
    model = checkpoint.model
    frames, mask = (x.to(device) for x in pad_frames([sample.frames for sample in samples]))
    tokens = model.encode_frames(checkpoint.preprocessing.normalised(frames), mask)
    memory, video = model.pool(tokens, mask)
    singly = [model.pool(tokens[:, i : i + 1]) for i in range(tokens.shape[1])]
    embeddings = torch.stack([embedding for _, embedding in singly], dim=1)
    mean = F.normalize((embeddings * mask.unsqueeze(-1)).sum(dim=1), dim=-1)
    first_memory, first = singly[0]
    return video, first, mean, memory, first_memory


@torch.inference_mode()
def encode_texts(
    checkpoint: Checkpoint, texts: list[str], *, device: torch.device, batch_size: int = 256
) -> Tensor:
    """Texts -> unit embeddings 'b e' on the CPU."""
    length = checkpoint.model.config.text.context_length
    rows = []
    for i in range(0, len(texts), batch_size):
        ids, mask = checkpoint.tokenizer.encode_batch(texts[i : i + batch_size], max_length=length)
        rows.append(checkpoint.model.encode_text(ids.to(device), mask.to(device)).cpu())
    return torch.cat(rows)
