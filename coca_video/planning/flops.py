"""FLOPs of a training step, in closed form: what torch's FlopCounterMode counts, without running anything.

A multiplication and its addition are two. Products of matrices, convolutions and attention count; causal
attention counts in full, and that of texts for their padding too, as it is computed without xformers.
Backward, each product is one more for its input and one more for its weight, where they need a gradient.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn

from coca_video.layers.patches import PatchEmbedding, Stem
from coca_video.layers.pooler import MAX_AT_ONCE
from coca_video.layers.transformer import MultiHeadAttention
from coca_video.models.adaptors import Adaptor
from coca_video.models.coca import CoCaConfig
from coca_video.models.poolers import PoolerStyle
from coca_video.models.text_decoder import TextStyle

# What embeddings are made by: micro-batches compute it once before the contrastive loss, and once behind.
EMBEDDING_PARTS = ("image_encoder", "poolers", "temporal", "unimodal", "projections")
GROUPS = ("image_encoder", "poolers", "temporal", "unimodal", "multimodal", "heads")


@dataclass(frozen=True)
class StepShape:
    """What one process reads in one step."""

    num_clips: int
    num_frames: int  # real frames of all clips together
    longest_clip: int  # frames, padding counted
    num_tokens: int  # real text tokens of all texts together
    longest_text: int  # tokens
    image_size: int | None = None  # pixels; None = the model's
    patch_dropout: float = 0.0
    num_pairs: int | None = None  # of all processes, whose embeddings are compared; None = num_clips, alone

    @staticmethod
    def of_masks(frame_mask: Tensor, text_mask: Tensor, **others) -> "StepShape":
        """Of a batch: bool 'b t' and 'b l', True = real, on the CPU, where a sum waits for nothing."""
        (num_clips, longest_clip), longest_text = frame_mask.shape, text_mask.shape[1]
        frames, tokens = int(frame_mask.sum()), int(text_mask.sum())
        return StepShape(num_clips, frames, longest_clip, tokens, longest_text, **others)


@dataclass(frozen=True)
class Work:
    """FLOPs of a part of the model."""

    forward: int = 0
    backward: int = 0
    repeated: int = 0  # of `forward`, what the backward pass computes again where blocks are recomputed
    read_again: int = 0  # of `forward`, what it computes again in any case: poolers of very long videos

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.forward + other.forward,
            self.backward + other.backward,
            self.repeated + other.repeated,
            self.read_again + other.read_again,
        )

    def __mul__(self, times: int) -> "Work":
        return Work(
            self.forward * times, self.backward * times, self.repeated * times, self.read_again * times
        )

    def total(self, *, recompute: bool, cached: bool) -> int:
        """Of a training step, see `flops_of_step`."""
        again = self.read_again + self.repeated * recompute + self.forward * cached
        return self.forward + self.backward + again


@dataclass(frozen=True)
class Gradient:
    """Who needs one: the weights of a part, and what it reads."""

    learns: bool
    flows: bool

    @property
    def passes(self) -> bool:
        """Whether what the part makes of it needs one."""
        return self.learns or self.flows

    @property
    def normed(self) -> "Gradient":
        """Behind a norm of the part's own."""
        return replace(self, flows=self.passes)


def flops_of_step(
    config: CoCaConfig,
    shape: StepShape,
    *,
    trained: Collection[str] | None = None,
    recompute: bool = False,
    cached: bool = False,
    encoded: bool = False,
    captioning: bool = True,
    contrastive: bool = True,
) -> int:
    """FLOPs that one process executes in one training step.

    trained: the groups that learn, by their names in CoCa; None = all. recompute: blocks are computed again
    in the backward pass. cached: embeddings are, too (GradCache's micro-batches). encoded: the batch brings
    its image tokens. captioning, contrastive: the losses that have a weight.
    Without recompute and cached it is what the model needs, of which MFU is made (PaLM, arXiv 2204.02311, B).
    """
    works = work_by_part(
        config, shape, trained=trained, encoded=encoded, captioning=captioning, contrastive=contrastive
    )
    return sum(
        work.total(recompute=recompute, cached=cached and name in EMBEDDING_PARTS)
        for name, work in works.items()
    )


def work_by_part(
    config: CoCaConfig,
    shape: StepShape,
    *,
    trained: Collection[str] | None = None,
    encoded: bool = False,
    captioning: bool = True,
    contrastive: bool = True,
) -> dict[str, Work]:
    """As `flops_of_step`, by the model's parts and the two losses' own.

    image_encoder, poolers, temporal, unimodal, multimodal; projections: into the shared space; vocabulary:
    the captioning loss with its scores; contrastive: the similarities.
    """
    learns = {group: trained is None or group in trained for group in GROUPS}
    step = _Step(config, shape, learns, captioning, contrastive)
    tokens_flow = learns["image_encoder"] and not encoded
    if config.temporal.adaptor is not Adaptor.factorised:
        tokens_flow = tokens_flow or step.times_learn
    poolers, memory, summary_flows = step.poolers(tokens_flow)
    temporal = Work()
    if config.temporal.adaptor is Adaptor.factorised:
        temporal, summary_flows = step.temporal(summary_flows)
        memory = Memory(shape.longest_clip, shape.num_frames, config.text.width, summary_flows)
    works = {
        "image_encoder": Work() if encoded else step.image_encoder(),
        "poolers": poolers,
        "temporal": temporal,
        "unimodal": step.unimodal(),
        "multimodal": Work(),
        "vocabulary": Work(),
        "projections": step.projections(summary_flows),
        "contrastive": step.similarities(summary_flows) if contrastive else Work(),
    }
    if captioning:
        works["multimodal"], features_flow = step.multimodal(memory)
        works["vocabulary"] = step.vocabulary(features_flow)
    return works


@dataclass(frozen=True)
class Memory:
    """What the multimodal layers read."""

    num_tokens: int  # a clip
    num_real: int  # of all clips together: hidden ones are not projected
    width: int
    flows: bool


@dataclass(frozen=True)
class _Step:
    config: CoCaConfig
    shape: StepShape
    learns: dict[str, bool]
    captioning: bool
    contrastive: bool

    @property
    def tokens_a_frame(self) -> int:
        return image_tokens(self.config, self.shape)

    @property
    def times_learn(self) -> bool:
        return self.config.temporal.num_positions > 0 and self.learns["temporal"]

    def image_encoder(self) -> Work:
        image, shape = self.config.image, self.shape
        is_joint = self.config.temporal.adaptor is Adaptor.joint
        gradient = Gradient(self.learns["image_encoder"], flows=is_joint and self.times_learn)
        # Patch dropout comes behind the patches.
        stem = _stem(self.config, shape, learns=gradient.learns)
        sizes = {"width": image.width, "mlp_width": image.mlp_width, "gradient": gradient.normed}
        tokens = self.tokens_a_frame
        if is_joint:  # over a clip's frames together, padding too
            return stem + _block(shape.num_clips, shape.longest_clip * tokens, **sizes) * image.num_layers
        return stem + _block(shape.num_frames, tokens, **sizes) * image.num_layers

    def poolers(self, tokens_flow: bool) -> tuple[Work, Memory, bool]:
        """Their work, what the multimodal layers read, whether the summary needs a gradient."""
        config, shape, tokens = self.config, self.shape, self.tokens_a_frame
        adaptor, style, queries = config.temporal.adaptor, config.poolers, config.num_caption_queries
        singly = adaptor in (Adaptor.mean, Adaptor.factorised)
        num_rows = shape.num_clips * (shape.longest_clip if singly else 1)
        length = tokens * (1 if singly else shape.longest_clip)
        real = num_rows * length if singly else shape.num_frames * tokens
        gradient = Gradient(self.learns["poolers"], tokens_flow)
        image = Memory(length, real, config.image.width, tokens_flow)
        for_captions = self.captioning and adaptor is not Adaptor.factorised
        work, memory = Work(), image
        if queries:
            # In a cascade, and where one pooler serves both, the summary comes out of the same queries.
            reached = for_captions or (self.contrastive_reads and style is not PoolerStyle.parallel)
            work += _pooler(num_rows, queries, image, config, learns=gradient.learns, reached=reached)
            left = queries - (style is PoolerStyle.shared)
            memory = Memory(left, num_rows * left, config.text.width, gradient.passes)
        if style is not PoolerStyle.shared:
            read = memory if style is PoolerStyle.cascade else image
            work += _pooler(num_rows, 1, read, config, learns=gradient.learns, reached=self.contrastive_reads)
        if adaptor is Adaptor.mean:
            memory = replace(memory, num_real=shape.num_clips * memory.num_tokens)
            averaged = 2 * num_rows * memory.num_tokens * memory.width * (shape.longest_clip > 1)
            work += Work(averaged, averaged * (memory.flows and self.captioning))
        return work, memory, gradient.passes

    @property
    def contrastive_reads(self) -> bool:
        """Whether a loss depends on the summaries: captions of the factorised adaptor do, too."""
        return self.contrastive or self.config.temporal.adaptor is Adaptor.factorised

    def temporal(self, flows: bool) -> tuple[Work, bool]:
        text, shape = self.config.text, self.shape
        gradient = Gradient(self.learns["temporal"], flows)
        sizes = {"width": text.width, "mlp_width": text.mlp_width, "gradient": gradient.normed}
        block = _block(shape.num_clips, shape.longest_clip, **sizes)
        return block * self.config.temporal.num_layers, gradient.passes

    def unimodal(self) -> Work:
        text = self.config.text
        rows, length = unimodal_rows(self.config, self.shape, contrastive=self.contrastive)
        gradient = Gradient(self.learns["unimodal"], flows=False).normed
        sizes = {"width": text.width, "mlp_width": text.mlp_width, "gradient": gradient, "rows": rows}
        return _block(self.shape.num_clips, length, **sizes) * text.num_unimodal_layers

    def multimodal(self, memory: Memory) -> tuple[Work, bool]:
        """The work, and whether the features need a gradient."""
        learns, num_layers = self.learns["multimodal"], self.config.text.num_multimodal_layers
        if self.config.text.style is TextStyle.open_clip:  # the memory has a norm
            memory = replace(memory, flows=memory.flows or learns)
        # A gradient may first come in with the memory, between the first layer's two attentions.
        first, flows = self._multimodal_layer(memory, self.learns["unimodal"])
        return first + self._multimodal_layer(memory, flows)[0] * (num_layers - 1), flows

    def _multimodal_layer(self, memory: Memory, flows: bool) -> tuple[Work, bool]:
        text, shape = self.config.text, self.shape
        rows, length = shape.num_tokens - shape.num_clips, shape.longest_text - 1
        gradient = Gradient(self.learns["multimodal"], flows).normed
        own = _self_attention(shape.num_clips, length, rows, text.width, gradient)
        read = _cross_attention(shape.num_clips, length, rows, memory, self.config, gradient)
        behind = replace(gradient, flows=gradient.flows or memory.flows)
        sizes = (rows, text.width, text.mlp_width)
        if text.style is TextStyle.open_clip:
            return _as_block(own, *sizes, gradient) + _as_block(read, *sizes, behind), behind.flows
        return _as_block(own + read, *sizes, behind), behind.flows

    def vocabulary(self, features_flow: bool) -> Work:
        text, rows = self.config.text, self.shape.num_tokens - self.shape.num_clips
        scores = _linear(rows, text.width, text.vocab_size, Gradient(self.learns["heads"], features_flow))
        return Work(scores.forward + scores.backward)  # the forward pass makes the gradients

    def projections(self, summary_flows: bool) -> Work:
        config, shape = self.config, self.shape
        for_video, for_text = self._embeddings_gradients(summary_flows)
        singly = config.temporal.adaptor in (Adaptor.mean, Adaptor.factorised)
        num_summaries = shape.num_clips * (shape.longest_clip if singly else 1)
        averaged = 2 * num_summaries * config.embed_dim * (num_summaries > shape.num_clips)
        video = _linear(num_summaries, config.text.width, config.embed_dim, for_video)
        video += Work(averaged, averaged * for_video.passes)
        if not self.contrastive:
            return Work(video.forward)  # computed with the memory, and not used
        text = _linear(shape.num_clips, config.text.width, config.embed_dim, for_text)
        return video + text

    def similarities(self, summary_flows: bool) -> Work:
        shape, gradients = self.shape, self._embeddings_gradients(summary_flows)
        # Alone, one product serves both directions; else each compares its own rows with those of all.
        num_products = 1 if shape.num_pairs is None else 2
        pairs = shape.num_clips * (shape.num_pairs or shape.num_clips)
        flops = 2 * num_products * pairs * self.config.embed_dim
        num_passing = sum(gradient.passes for gradient in gradients)
        return Work(flops, flops * (num_passing + (num_passing > 0)))  # the scores are computed again

    def _embeddings_gradients(self, summary_flows: bool) -> tuple[Gradient, Gradient]:
        """Of clips' and texts'."""
        learns = self.learns["heads"]
        return Gradient(learns, summary_flows), Gradient(learns, self.learns["unimodal"])


def image_tokens(config: CoCaConfig, shape: StepShape) -> int:
    """Tokens of a frame in the image encoder's blocks."""
    patches = ((shape.image_size or config.image.image_size) // config.image.patch_size) ** 2
    kept = max(1, round((1 - shape.patch_dropout) * patches)) if shape.patch_dropout else patches
    return kept + config.image.num_class_tokens


def unimodal_rows(config: CoCaConfig, shape: StepShape, *, contrastive: bool) -> tuple[int, int]:
    """Tokens of all texts in the unimodal layers, and of the longest: with [CLS], or without the last one.

    In the style of open_clip a pad stands before [CLS], but behind a text that fills the context.
    """
    if not contrastive:
        return shape.num_tokens - shape.num_clips, shape.longest_text - 1
    behind = 1
    if config.text.style is TextStyle.open_clip and shape.longest_text < config.text.context_length:
        behind = 2
    return shape.num_tokens + behind * shape.num_clips, shape.longest_text + behind


def _stem(config: CoCaConfig, shape: StepShape, *, learns: bool) -> Work:
    """From pixels, which need no gradient, to patches."""
    image, size = config.image, shape.image_size or config.image.image_size
    if image.stem == Stem.patch:
        rows = shape.num_frames * (size // image.patch_size) ** 2
        return _linear(rows, 3 * image.patch_size**2, image.width, Gradient(learns, flows=False))
    work = Work()
    for before, after, stride in _stem_convolutions(image.width, image.patch_size):
        size //= stride
        flows = learns and before != 3
        work += _linear(shape.num_frames * size**2, 9 * before, after, Gradient(learns, flows))
    return work


@lru_cache
def _stem_convolutions(width: int, patch_size: int) -> list[tuple[int, int, int]]:
    """Channels in and out, and the stride, of each."""
    with torch.device("meta"):
        stem = PatchEmbedding(width, patch_size=patch_size, stem=Stem.conv)
    convolutions = [layer for layer in stem.modules() if isinstance(layer, nn.Conv2d)]
    return [(layer.in_channels, layer.out_channels, layer.stride[0]) for layer in convolutions]


@lru_cache
def absorbs(width: int, num_heads: int, memory_width: int, *, num_queries: int, num_tokens: int) -> bool:
    """Whether the layer leaves the memory as it is."""
    with torch.device("meta"):
        attention = MultiHeadAttention(width, num_heads, memory_width=memory_width)
        return attention.absorbs(num_queries, torch.empty(1, num_tokens, memory_width))


def _linear(rows: int, width_in: int, width_out: int, gradient: Gradient) -> Work:
    flops = 2 * rows * width_in * width_out
    return Work(flops, flops * (gradient.learns + gradient.flows))


def _attention(batch: int, queries: int, keys: int, width: int, *, q: bool, kv: bool) -> Work:
    """width: of all heads together; q, kv: whether queries, keys and values need a gradient."""
    flops = 2 * batch * queries * keys * width
    needed = q + 2 * kv + (q or kv)  # of queries; of keys and of values; of the weights
    return Work(2 * flops, flops * needed)


def _self_attention(batch: int, length: int, rows: int, width: int, gradient: Gradient) -> Work:
    maps = _linear(rows, width, width, gradient) * 4
    flows = gradient.flows
    return maps + _attention(batch, length, length, width, q=flows, kv=flows)


def _mlp(rows: int, width: int, mlp_width: int, gradient: Gradient) -> Work:
    return _linear(rows, width, mlp_width, gradient) + _linear(rows, mlp_width, width, gradient)


def _as_block(attention: Work, rows: int, width: int, mlp_width: int, gradient: Gradient) -> Work:
    """With the MLP that ends it, whose last product recomputation leaves out."""
    repeated = attention.forward + 2 * rows * width * mlp_width
    work = attention + _mlp(rows, width, mlp_width, gradient)
    return replace(work, repeated=repeated * gradient.passes)


def _block(
    batch: int, length: int, *, width: int, mlp_width: int, gradient: Gradient, rows: int | None = None
) -> Work:
    """rows: tokens of all sequences, where they are packed."""
    rows = batch * length if rows is None else rows
    attention = _self_attention(batch, length, rows, width, gradient)
    return _as_block(attention, rows, width, mlp_width, gradient)


def _cross_attention(
    batch: int, length: int, rows: int, memory: Memory, config: CoCaConfig, gradient: Gradient
) -> Work:
    """Of packed texts; all of them are padded to be read against their memories."""
    width = config.text.width
    read = _read(batch, length, memory, width, config.text.num_heads, gradient.learns, q=gradient.flows)
    back = Gradient(gradient.learns, gradient.flows or memory.flows)
    return _linear(rows, width, width, gradient) + read + _linear(rows, width, width, back.normed)


def _pooler(
    batch: int, queries: int, memory: Memory, config: CoCaConfig, *, learns: bool, reached: bool
) -> Work:
    """Learned queries, projected once. reached: whether a loss depends on what they read."""
    width, gradient = config.text.width, Gradient(learns, memory.flows).normed
    memory = replace(memory, flows=gradient.flows)  # behind the norm of tokens
    own = _linear(queries, width, width, Gradient(learns, learns))
    read = _read(batch, queries, memory, width, config.num_pooler_heads, learns, q=learns)
    work = own + read + _linear(batch * queries, width, width, gradient)
    return work if reached else Work(work.forward)


def _read(
    batch: int, queries: int, memory: Memory, width: int, num_heads: int, learns: bool, *, q: bool
) -> Work:
    """Projected queries of width `width` read the memory: projected too, or as it is."""
    if memory.num_tokens > MAX_AT_ONCE:
        return _read_in_parts(batch, queries, memory, width, learns, q=q)
    sizes = {"num_queries": queries, "num_tokens": memory.num_tokens}
    if absorbs(width, num_heads, memory.width, **sizes):
        into = _linear(batch * queries, width, memory.width, Gradient(learns, q))
        heads = {"q": q or learns, "kv": memory.flows}
        read = _attention(batch, queries * num_heads, memory.num_tokens, memory.width, **heads)
        back = Gradient(learns, q or learns or memory.flows)
        return into + read + _linear(batch * queries, memory.width, width, back)
    gradient = Gradient(learns, memory.flows)
    maps = _linear(memory.num_real, memory.width, width, gradient) * 2
    return maps + _attention(batch, queries, memory.num_tokens, width, q=q, kv=gradient.passes)


def _read_in_parts(batch: int, queries: int, memory: Memory, width: int, learns: bool, *, q: bool) -> Work:
    """The poolers' way through more than MAX_AT_ONCE tokens, padding too."""
    gradient = Gradient(learns, memory.flows)
    maps = _linear(batch * memory.num_tokens, memory.width, width, gradient) * 2
    work = maps + _attention(batch, queries, memory.num_tokens, width, q=q, kv=gradient.passes)
    # Each part is computed again, up to its last product.
    again = work.forward - 2 * batch * queries * memory.num_tokens * width
    return replace(work, read_again=again * (q or gradient.passes))
