"""CoCa: one image encoder, two poolers in cascade, one split decoder; pictures are videos of one frame."""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from coca_video.layers.pooler import AttentionalPooler
from coca_video.layers.positions import TimePositions
from coca_video.models.image_encoder import ImageEncoder, ImageEncoderConfig
from coca_video.models.text_decoder import MultimodalDecoder, TextDecoderConfig, UnimodalDecoder


@dataclass
class CoCaConfig:
    """Defaults are the paper's Base model (CoCa, table 1)."""

    image: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    text: TextDecoderConfig = field(default_factory=TextDecoderConfig)
    embed_dim: int = 768  # the space shared by clips and texts
    num_caption_queries: int = 256
    num_pooler_heads: int = 12
    num_time_positions: int = 0  # frames with a learned position of their own; 0 = frames are a set
    init_temperature: float = 0.07


@dataclass
class CoCaOutput:
    video_embedding: Tensor  # 'b e', unit length
    text_embedding: Tensor  # 'b e', unit length
    logits: Tensor  # 'b l v': position i predicts token i + 1
    logit_scale: Tensor  # scalar, 1 / temperature


class CoCa(nn.Module):
    """Contrastive captioner (arXiv 2205.01917) with VideoCoCa's attentional pooling over frames (2212.04979).

    'b t c h w' --image encoder per frame--> 'b (t n) d' --generative pooler--> caption memory 'b q d'
    --contrastive pooler--> video embedding 'b e'. Text: unimodal layers -> text embedding 'b e' and, through
    the multimodal layers, logits. One forward serves both losses.
    """

    def __init__(self, config: CoCaConfig):
        super().__init__()
        self.config = config
        width = config.text.width
        self.image_encoder = ImageEncoder(config.image)
        self.time_positions = (
            TimePositions(config.num_time_positions, config.image.width)
            if config.num_time_positions
            else None
        )
        self.caption_pooler = AttentionalPooler(
            width,
            config.num_pooler_heads,
            num_queries=config.num_caption_queries,
            memory_width=config.image.width,
        )
        self.contrastive_pooler = AttentionalPooler(
            width, config.num_pooler_heads, num_queries=1, memory_width=width
        )
        self.unimodal = UnimodalDecoder(config.text)
        self.multimodal = MultimodalDecoder(config.text, memory_width=width)
        self.video_projection = nn.Linear(width, config.embed_dim, bias=False)
        self.text_projection = nn.Linear(width, config.embed_dim, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / config.init_temperature)))
        for projection in (self.video_projection, self.text_projection):
            nn.init.orthogonal_(projection.weight)

    def encode_frames(self, frames: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """'b t c h w', normalised pixels -> tokens 'b t n d', each frame on its own.

        frame_mask: bool 'b t'; padding frames are not encoded, their tokens are zero.
        """
        if frame_mask is None:
            frame_mask = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)
        real = self.image_encoder(frames[frame_mask])
        tokens = real.new_zeros(*frame_mask.shape, *real.shape[1:])
        tokens[frame_mask] = real
        return tokens

    def pool(self, tokens: Tensor, frame_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """tokens 'b t n d', frame_mask bool 'b t' -> caption memory 'b q d', video embedding 'b e'."""
        if self.time_positions is not None:
            tokens = self.time_positions(tokens, frame_mask)
        mask = None if frame_mask is None else repeat(frame_mask, "b t -> b (t n)", n=tokens.shape[2])
        memory = self.caption_pooler(rearrange(tokens, "b t n d -> b (t n) d"), mask=mask)
        pooled = rearrange(self.contrastive_pooler(memory), "b 1 d -> b d")
        return memory, F.normalize(self.video_projection(pooled), dim=-1)

    def encode_video(self, frames: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """'b t c h w', bool 'b t' -> unit video embeddings 'b e'."""
        return self.pool(self.encode_frames(frames, frame_mask), frame_mask)[1]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """'b c h w' -> unit embeddings 'b e': a video of one frame."""
        return self.encode_video(rearrange(pixels, "b c h w -> b 1 c h w"))

    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids 'b l', mask bool 'b l' -> unit text embeddings 'b e'."""
        return F.normalize(self.text_projection(self.unimodal(ids, mask)[1]), dim=-1)

    def caption_logits(self, memory: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Caption memory 'b q d', text so far ids and mask 'b l' -> logits 'b l v'."""
        return self.multimodal(self.unimodal(ids, mask)[0], memory)

    def forward(
        self, frames: Tensor, ids: Tensor, text_mask: Tensor, frame_mask: Tensor | None = None
    ) -> CoCaOutput:
        """frames 'b t c h w', ids and text_mask 'b l', frame_mask 'b t' -> everything both losses need."""
        memory, video_embedding = self.pool(self.encode_frames(frames, frame_mask), frame_mask)
        text, sentence = self.unimodal(ids, text_mask)
        return CoCaOutput(
            video_embedding=video_embedding,
            text_embedding=F.normalize(self.text_projection(sentence), dim=-1),
            logits=self.multimodal(text, memory),
            logit_scale=self.log_scale.exp(),
        )
