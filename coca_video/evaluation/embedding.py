"""Clips and texts through the model, once, for every figure made of them."""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from tqdm import tqdm

from coca_video.checkpoint import Checkpoint
from coca_video.data.samples import pad_frames
from coca_video.data.sources import Source
from coca_video.data.token_cache import CachedSource, TokenCache, encode_source, encoder_hash
from coca_video.models.coca import CoCa
from coca_video.models.text_decoder import Memory

MANY_BATCHES = 20  # of texts: those take long enough for a progress bar


@dataclass
class ClipFeatures:
    """The views of clips that results set side by side; all on the CPU."""

    video: Tensor  # 'b e': all frames together, as the model's adaptor reads them
    first_frame: Tensor  # 'b e': the first sampled frame as a picture
    mean_of_frames: Tensor  # 'b e': mean of the frames' embeddings as pictures, unit length (CoCa)
    video_memory: Memory  # what captions are written from
    first_frame_memory: Memory


@torch.inference_mode()
def encode_clips(checkpoint: Checkpoint, clips: list[Tensor], *, device: torch.device) -> ClipFeatures:
    """A batch: uint8 frames 't c h w' of the model's size, or the tokens 't n d' of each clip.

    Tokens are those of frames encoded alone, which the joint adaptor cannot use.
    """
    model = checkpoint.model
    content, mask = (x.to(device) for x in pad_frames(clips))
    if content.is_floating_point():
        tokens = alone = content
    else:
        pixels = checkpoint.preprocessing.normalised(content)
        tokens = model.encode_frames(pixels, mask)
        alone = encode_alone(model, pixels, mask, tokens=tokens)
    memory, video = model.pool(tokens, mask)
    memories, each = model.pool(rearrange(alone, "b t n d -> (b t) 1 n d"))
    first_memory = memories[:: alone.shape[1]]
    each = rearrange(each, "(b t) e -> b t e", b=len(clips))
    mean = F.normalize((each * mask.unsqueeze(-1)).sum(dim=1), dim=-1)
    return ClipFeatures(video.cpu(), each[:, 0].cpu(), mean.cpu(), memory.to("cpu"), first_memory.to("cpu"))


def image_tokens(checkpoint: Checkpoint, content: Tensor, frame_mask: Tensor) -> Tensor:
    """uint8 frames 'b t c h w' of the model's size -> tokens 'b t n d'; what is tokens already stays."""
    if content.is_floating_point():
        return content
    return checkpoint.model.encode_frames(checkpoint.preprocessing.normalised(content), frame_mask)


def cached_source(
    model: CoCa, source: Source, folder: str, *, batch_size: int, num_workers: int
) -> CachedSource:
    """The source with its tokens in place of frames, read from the cache in `folder`, encoded where missing.

    The model's adaptor must encode frames alone. See `encode_source`.
    """
    cache = open_token_cache(model, folder)
    return encode_source(source, cache, model.image_encoder, batch_size=batch_size, num_workers=num_workers)


def open_token_cache(model: CoCa, folder: str) -> TokenCache:
    """The part of the cache in `folder` that belongs to the model's image encoder, as it is set."""
    encoder = model.image_encoder
    settings = asdict(model.config.image) | {"merged_per_block": encoder.merged_per_block}
    return TokenCache(folder, encoder=encoder_hash(encoder, settings))


def encode_alone(model: CoCa, frames: Tensor, frame_mask: Tensor, *, tokens: Tensor) -> Tensor:
    """Tokens 'b t n d' of each frame as a picture of its own.

    frames: normalised 'b t c h w'; tokens: of the whole clips 'b t n d', which are that already but for the
    joint adaptor.
    """
    if model.temporal.encodes_frames_alone:
        return tokens
    singly = model.encode_frames(frames[frame_mask].unsqueeze(1)).squeeze(1)
    alone = singly.new_zeros(tokens.shape)
    alone[frame_mask] = singly
    return alone


@torch.inference_mode()
def encode_texts(
    checkpoint: Checkpoint, texts: list[str], *, device: torch.device, batch_size: int = 256
) -> Tensor:
    """Texts -> unit embeddings 'b e' on the CPU."""
    length = checkpoint.model.config.text.context_length
    rows = []
    starts = range(0, len(texts), batch_size)
    for i in tqdm(starts, desc="texts", unit="batch", disable=len(starts) < MANY_BATCHES):
        ids, mask = checkpoint.tokenizer.encode_batch(texts[i : i + batch_size], max_length=length)
        rows.append(checkpoint.model.encode_text(ids.to(device), mask.to(device)).cpu())
    return torch.cat(rows)
