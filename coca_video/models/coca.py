"""CoCa: one image encoder, two attentional poolers, one split decoder; pictures are videos of one frame."""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from coca_video.layers.linear import Linear
from coca_video.models.adaptors import (
    Adaptor,
    AttentionalPooling,
    Factorised,
    JointSpaceTime,
    MeanPooling,
    TemporalConfig,
    masked_mean,
)
from coca_video.models.image_encoder import ImageEncoder, ImageEncoderConfig
from coca_video.models.poolers import Poolers, PoolerStyle
from coca_video.models.text_decoder import (
    EMBEDDING_STD,
    Memory,
    MultimodalDecoder,
    TextDecoderConfig,
    UnimodalDecoder,
)
from coca_video.ops.packing import Packing, until_last


@dataclass
class CoCaConfig:
    """Defaults are the paper's Base model (CoCa, table 1)."""

    image: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    text: TextDecoderConfig = field(default_factory=TextDecoderConfig)
    temporal: TemporalConfig = field(default_factory=TemporalConfig)
    embed_dim: int = 768  # the space shared by clips and texts
    poolers: PoolerStyle = PoolerStyle.cascade
    num_caption_queries: int = 256  # 0 = captions are written from the image tokens themselves
    num_pooler_heads: int = 12
    init_temperature: float = 0.07


@dataclass
class CoCaOutput:
    video_embedding: Tensor  # 'b e', unit length
    text_embedding: Tensor  # 'b e', unit length
    caption_features: Tensor  # 'n d', packed: of each real token but a text's last one
    caption_targets: Tensor  # int 'n': the ids that `heads.vocabulary` shall predict from them
    logit_scale: Tensor  # scalar, 1 / temperature


class Heads(nn.Module):
    """The last linear maps: clips and texts into their shared space, text features onto the vocabulary."""

    def __init__(self, width: int, *, embed_dim: int, vocab_size: int, init_temperature: float):
        super().__init__()
        self.video = Linear(width, embed_dim, bias=False)
        self.text = Linear(width, embed_dim, bias=False)
        self.vocabulary = Linear(width, vocab_size, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / init_temperature)))
        for projection in (self.video, self.text):
            nn.init.orthogonal_(projection.weight)
        nn.init.normal_(self.vocabulary.weight, std=EMBEDDING_STD)  # the first loss is close to ln v


class CoCa(nn.Module):
    """Contrastive captioner (arXiv 2205.01917) on clips, with VideoCoCa's adaptors (2212.04979).

    'b t c h w' --image encoder--> 'b t n d' --adaptor, poolers--> caption memory 'b q d' and video embedding
    'b e'. Text: unimodal layers -> text embedding 'b e' and, through the multimodal layers, logits. One
    forward serves both losses. The attributes that are modules are also the names by which its parts are
    tuned: image_encoder, poolers, temporal, unimodal, multimodal, heads; and task_head, where there is one.
    """

    def __init__(self, config: CoCaConfig):
        super().__init__()
        self.config = config
        width = config.text.width
        self.image_encoder = ImageEncoder(config.image)
        self.poolers = Poolers(
            width,
            config.num_pooler_heads,
            image_width=config.image.width,
            num_queries=config.num_caption_queries,
            style=config.poolers,
        )
        self.temporal = build_adaptor(config)
        self.unimodal = UnimodalDecoder(config.text)
        # What the factorised adaptor remembers are summaries, not what the caption pooler made.
        is_factorised = config.temporal.adaptor is Adaptor.factorised
        memory_width = width if is_factorised else self.poolers.memory_width
        self.multimodal = MultimodalDecoder(config.text, memory_width=memory_width)
        self.heads = Heads(
            width,
            embed_dim=config.embed_dim,
            vocab_size=config.text.vocab_size,
            init_temperature=config.init_temperature,
        )
        self.task_head: nn.Module | None = None  # what a task adds (`coca_video.tasks`)

    def encode_frames(self, frames: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """'b t c h w', normalised pixels -> tokens 'b t n d'.

        frame_mask: bool 'b t'; padding frames are not encoded, their tokens mean nothing. Each frame is
        encoded on its own, but by the joint adaptor.
        """
        return self.temporal.encode(self.image_encoder, frames, frame_mask)

    def pool(self, tokens: Tensor, frame_mask: Tensor | None = None) -> tuple[Memory, Tensor]:
        """tokens 'b t n d', frame_mask bool 'b t' -> caption memory 'b q d', unit video embedding 'b e'."""
        pooled = self.temporal.pool(self.poolers, tokens, frame_mask)
        embeddings = F.normalize(self.heads.video(pooled.summaries), dim=-1)
        return pooled.memory, F.normalize(masked_mean(embeddings, pooled.summary_mask), dim=-1)

    def encode_video(self, frames: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """'b t c h w', bool 'b t' -> unit video embeddings 'b e'."""
        return self.pool(self.encode_frames(frames, frame_mask), frame_mask)[1]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """'b c h w' -> unit embeddings 'b e': a video of one frame."""
        return self.encode_video(rearrange(pixels, "b c h w -> b 1 c h w"))

    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids 'b l', mask bool 'b l' -> unit text embeddings 'b e'."""
        return F.normalize(self.heads.text(self.unimodal(ids, mask)[1]), dim=-1)

    def caption_logits(self, memory: Memory, ids: Tensor) -> Tensor:
        """The text so far, ids 'b l' -> logits 'b l v'; padding must come last."""
        return self.heads.vocabulary(self.multimodal(self.unimodal.features(ids), memory))

    def caption_features(self, memory: Memory, ids: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
        """ids and text_mask 'b l' -> CoCaOutput's caption_features and caption_targets, without [CLS]."""
        leading = self._leading(text_mask)
        text = self.unimodal.features(ids, leading)
        return self.multimodal(text, memory, leading), leading.pack(ids[:, 1:])

    def fuse(
        self, tokens: Tensor, ids: Tensor, text_mask: Tensor, frame_mask: Tensor | None = None
    ) -> Tensor:
        """A text read in sight of the clip's tokens 'b t n d': features 'b l d', zeros for padding.

        What understanding is made of (section 4.2.2): a token's knows the clip and the text up to there.
        """
        memory, _ = self.pool(tokens, frame_mask)
        rows = Packing(until_last(text_mask))
        features = self.multimodal(self.unimodal.features(ids, rows), memory, rows)
        x = rows.unpack(features)
        return F.pad(x, (0, 0, 0, ids.shape[1] - x.shape[1]))

    def forward(
        self, frames: Tensor, ids: Tensor, text_mask: Tensor, frame_mask: Tensor | None = None
    ) -> CoCaOutput:
        """frames 'b t c h w', ids and text_mask 'b l', frame_mask 'b t' -> everything both losses need."""
        return self.read(self.encode_frames(frames, frame_mask), ids, text_mask, frame_mask)

    def read(
        self, tokens: Tensor, ids: Tensor, text_mask: Tensor, frame_mask: Tensor | None = None
    ) -> CoCaOutput:
        """`forward` from tokens 'b t n d' that have been encoded before."""
        memory, video_embedding = self.pool(tokens, frame_mask)
        text, sentence = self.unimodal(ids, text_mask)
        leading = self._leading(text_mask)
        return CoCaOutput(
            video_embedding=video_embedding,
            text_embedding=F.normalize(self.heads.text(sentence), dim=-1),
            caption_features=self.multimodal(leading.pack(text), memory, leading),
            caption_targets=leading.pack(ids[:, 1:]),
            logit_scale=self.heads.log_scale.exp(),
        )

    def num_caption_targets(self, text_mask: Tensor) -> int:
        """Of texts with this mask, bool 'b l': how many tokens are predicted (CoCaOutput's n)."""
        return int(self._leading_mask(text_mask).sum())

    def _leading(self, text_mask: Tensor) -> Packing:
        """Each text's tokens but the last, which predicts nothing."""
        return Packing(self._leading_mask(text_mask))

    def _leading_mask(self, text_mask: Tensor) -> Tensor:
        return until_last(text_mask)[:, 1 : self.config.text.context_length]


def build_adaptor(config: CoCaConfig) -> nn.Module:
    """The temporal part alone, with fresh weights: what a model that comes from pictures has not learned."""
    temporal, text = config.temporal, config.text
    if temporal.adaptor is Adaptor.factorised:
        return Factorised(
            text.width,
            text.num_heads,
            text.mlp_width,
            num_layers=temporal.num_layers,
            num_positions=temporal.num_positions,
        )
    if temporal.adaptor is Adaptor.mean:
        return MeanPooling()
    kind = JointSpaceTime if temporal.adaptor is Adaptor.joint else AttentionalPooling
    return kind(config.image.width, num_positions=temporal.num_positions)
