"""Bytes that a training step takes, in closed form: what autograd keeps of layers, and what else is held.

Attention is taken to keep its queries, keys, values and result, never its weights, which is true of torch's
SDPA and of xformers. Under bfloat16 products keep their inputs in it, once for each product that casts them;
the residual stream and the inputs of norms stay float32.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from coca_video.models.adaptors import Adaptor
from coca_video.models.coca import CoCaConfig
from coca_video.models.poolers import PoolerStyle
from coca_video.models.text_decoder import TextStyle
from coca_video.ops.cross_entropy import CHUNK_BYTES
from coca_video.ops.pairwise import TILE_SIZE
from coca_video.planning.flops import StepShape, absorbs, image_tokens, unimodal_rows

FLOAT = 4  # bytes
STATISTICS = 2 * FLOAT  # of a norm, a row


@dataclass(frozen=True)
class Kept:
    """Bytes that the backward pass needs."""

    whole: int = 0  # without recomputation
    inputs: int = 0  # with it: of blocks their inputs alone
    largest_block: int = 0  # what one block keeps while it is recomputed
    workspace: int = 0  # what the backward pass of one block takes beside

    def __add__(self, other: "Kept") -> "Kept":
        largest = max(self.largest_block, other.largest_block)
        workspace = max(self.workspace, other.workspace)
        return Kept(self.whole + other.whole, self.inputs + other.inputs, largest, workspace)

    def __mul__(self, times: int) -> "Kept":
        return replace(self, whole=self.whole * times, inputs=self.inputs * times)

    def total(self, *, recompute: bool) -> int:
        return self.inputs + self.largest_block if recompute else self.whole


def activations_by_part(
    config: CoCaConfig,
    shape: StepShape,
    *,
    bfloat16: bool,
    trained: Collection[str] | None = None,
    encoded: bool = False,
    captioning: bool = True,
    contrastive: bool = True,
) -> dict[str, Kept]:
    """What is kept of a micro-batch's forward pass, `shape`; for parts and arguments see `work_by_part`.

    Parts that are frozen but passed by gradients count as if they learned: a little too much.
    """
    step = _Step(config, shape, 2 if bfloat16 else FLOAT, bfloat16, captioning, contrastive)
    is_timed = config.temporal.adaptor is Adaptor.joint and config.temporal.num_positions > 0
    needed = {"image_encoder", "temporal"} if is_timed else {"image_encoder"}
    encoder_learns = (trained is None or not needed.isdisjoint(trained)) and not encoded
    return {
        "image_encoder": step.image_encoder() if encoder_learns else Kept(),
        "poolers": step.poolers(),
        "temporal": step.temporal(),
        "unimodal": step.unimodal(),
        "multimodal": step.multimodal() if captioning else Kept(),
        "vocabulary": step.vocabulary() if captioning else Kept(),
    }


@dataclass(frozen=True)
class _Step:
    config: CoCaConfig
    shape: StepShape
    low: int  # bytes of a number that enters a product
    casts: bool  # whether products cast what they read, each for itself
    captioning: bool
    contrastive: bool

    def copies(self, num_products: int) -> int:
        """Bytes a number that so many products read."""
        return self.low * num_products if self.casts else FLOAT

    @property
    def pools_singly(self) -> bool:
        return self.config.temporal.adaptor in (Adaptor.mean, Adaptor.factorised)

    def image_encoder(self) -> Kept:
        image, shape, tokens = self.config.image, self.shape, image_tokens(self.config, self.shape)
        size = shape.image_size or image.image_size
        pixels = shape.num_frames * 3 * size**2 * self.low
        is_joint = self.config.temporal.adaptor is Adaptor.joint
        rows = (shape.num_clips * shape.longest_clip if is_joint else shape.num_frames) * tokens
        block = self.block(rows, image.width, image.mlp_width, image.num_heads, is_masked=is_joint)
        norm = self.normed(rows, image.width)  # before or behind the blocks
        return self.plain(pixels + norm) + block * image.num_layers

    def poolers(self) -> Kept:
        config, shape = self.config, self.shape
        tokens, queries = image_tokens(config, shape), config.num_caption_queries
        num_rows = shape.num_clips * (shape.longest_clip if self.pools_singly else 1)
        length = tokens * (1 if self.pools_singly else shape.longest_clip)
        kept, read = self.normed(num_rows * length, config.image.width), (length, config.image.width)
        masked = {"is_masked": not self.pools_singly}
        if queries:
            kept += self.pooler(num_rows, queries, *read, **masked)
        if config.poolers is PoolerStyle.cascade and queries:
            read, masked = (queries, config.text.width), {"is_masked": False}
            kept += self.normed(num_rows * queries, config.text.width)
        if config.poolers is not PoolerStyle.shared:
            kept += self.pooler(num_rows, 1, *read, **masked)
        return self.plain(kept)

    @staticmethod
    def normed(rows: int, width: int) -> int:
        """What norms keep of what they read: once, however many there are."""
        return rows * (FLOAT * width + STATISTICS)

    def pooler(self, batch: int, queries: int, num_tokens: int, memory_width: int, *, is_masked: bool) -> int:
        width, heads, rows = self.config.text.width, self.config.num_pooler_heads, batch * queries
        kept = self.read(batch, queries, num_tokens, memory_width, width, heads, is_masked=is_masked)
        kept += queries * self.low * width  # learned queries are projected once
        is_absorbed = absorbs(width, heads, memory_width, num_queries=queries, num_tokens=num_tokens)
        if not self.casts and (
            is_absorbed or not is_masked
        ):  # the normed tokens, of which `read` has no copy
            kept += batch * num_tokens * memory_width * FLOAT
        # The output map reads what attention keeps, but where a mask has made a copy of it.
        return kept + self.normed(rows, width) + is_masked * rows * self.low * width

    def read(
        self,
        batch: int,
        queries: int,
        num_tokens: int,
        memory_width: int,
        width: int,
        heads: int,
        *,
        is_masked: bool,
    ) -> int:
        """What reading a memory keeps, its copies included, but neither itself nor the queries."""
        is_absorbed = absorbs(width, heads, memory_width, num_queries=queries, num_tokens=num_tokens)
        is_packed = is_masked and not is_absorbed
        memory = batch * num_tokens * memory_width * (2 * self.low if self.casts else FLOAT * is_packed)
        if is_absorbed:
            # Queries of the memory's width for each head, and as many results: each twice, in two layouts.
            return memory + batch * queries * (self.low * width + 3 * heads * memory_width * self.low)
        # Behind a mask they are kept as the maps make them, and as attention takes them.
        keys_values = 2 * batch * num_tokens * width * self.low * (2 if is_masked else 1)
        return memory + keys_values + batch * queries * width * self.low

    def temporal(self) -> Kept:
        text, shape = self.config.text, self.shape
        if self.config.temporal.adaptor is not Adaptor.factorised:
            return Kept()
        rows = shape.num_clips * shape.longest_clip
        block = self.block(rows, text.width, text.mlp_width, text.num_heads, is_masked=True)
        return block * self.config.temporal.num_layers

    def unimodal(self) -> Kept:
        text = self.config.text
        rows, length = unimodal_rows(self.config, self.shape, contrastive=self.contrastive)
        padded = self.shape.num_clips * length
        sizes = (text.width, text.mlp_width, text.num_heads)
        return self.block(rows, *sizes, padded=padded) * text.num_unimodal_layers

    def multimodal(self) -> Kept:
        config, text, shape = self.config, self.config.text, self.shape
        rows, length = shape.num_tokens - shape.num_clips, shape.longest_text - 1
        sizes = {"padded": shape.num_clips * length, "rows": rows, "width": text.width}
        memory = self.memory()
        reading = self.normed(rows, text.width) + rows * self.low * text.width  # the query map's input
        widths = (*memory, text.width, text.num_heads)
        reading += self.read(shape.num_clips, length, *widths, is_masked=self.memory_is_masked)
        # Queries as they are made and as they are padded, and the output map's input.
        reading += (2 * rows + shape.num_clips * length) * self.low * text.width
        own = self.self_attention(**sizes, num_heads=text.num_heads)
        mlp = self.mlp(rows, text.width, text.mlp_width)
        if text.style is TextStyle.open_clip:
            copy = 0 if self.casts else shape.num_clips * memory[0] * memory[1] * FLOAT
            reading += self.normed(shape.num_clips * memory[0], memory[1]) + copy
            blocks = self.as_block(rows, text.width, own + mlp) + self.as_block(
                rows, text.width, reading + mlp
            )
        else:
            blocks = self.as_block(rows, text.width, own + reading + mlp)
        once = self.normed(rows, text.width)
        # All layers keep the one memory, if no norm of the poolers has kept it.
        is_normed = not self.pools_singly and (
            config.poolers is PoolerStyle.cascade or not config.num_caption_queries
        )
        if not self.casts and text.style is not TextStyle.open_clip and not is_normed:
            once += shape.num_clips * memory[0] * memory[1] * FLOAT
        return blocks * text.num_multimodal_layers + self.plain(once)

    def memory(self) -> tuple[int, int]:
        """Tokens a clip, and their width, that the multimodal layers read."""
        config, queries = self.config, self.config.num_caption_queries
        if config.temporal.adaptor is Adaptor.factorised:
            return self.shape.longest_clip, config.text.width
        if queries:
            return queries - (config.poolers is PoolerStyle.shared), config.text.width
        num_frames = 1 if self.pools_singly else self.shape.longest_clip
        return num_frames * image_tokens(config, self.shape), config.image.width

    @property
    def memory_is_masked(self) -> bool:
        is_factorised = self.config.temporal.adaptor is Adaptor.factorised
        return is_factorised or not (self.config.num_caption_queries or self.pools_singly)

    def vocabulary(self) -> Kept:
        """The gradients that the captioning loss has made, and its chunks of scores."""
        text, rows = self.config.text, self.shape.num_tokens - self.shape.num_clips
        gradients = FLOAT * text.width * (rows + text.vocab_size)
        scores = min(CHUNK_BYTES, FLOAT * rows * text.vocab_size)
        return replace(self.plain(gradients), workspace=3 * scores)

    def block(
        self,
        rows: int,
        width: int,
        mlp_width: int,
        num_heads: int,
        *,
        padded: int = 0,
        is_masked: bool = False,
    ) -> Kept:
        sizes = {"rows": rows, "width": width, "num_heads": num_heads}
        kept = self.self_attention(**sizes, padded=padded, is_masked=is_masked)
        return self.as_block(rows, width, kept + self.mlp(rows, width, mlp_width), mlp_width=mlp_width)

    def self_attention(
        self, *, rows: int, width: int, num_heads: int, padded: int = 0, is_masked: bool = False
    ) -> int:
        """padded: rows of the attention where others are packed; 0 = rows, with one result less to keep."""
        kept = self.normed(rows, width) + rows * width * self.copies(3)
        kept += (padded or rows) * (4 * width * self.low + num_heads * FLOAT)
        # Packed: queries, keys, values and result as they are padded and as they are not.
        return kept + rows * width * self.low * (4 if padded else is_masked)

    def mlp(self, rows: int, width: int, mlp_width: int) -> int:
        return self.normed(rows, width) + rows * self.low * (width + mlp_width)

    def as_block(self, rows: int, width: int, kept: int, *, mlp_width: int | None = None) -> Kept:
        # The MLP's hidden layer behind the GELU, its gradient, and the gradient before the GELU.
        workspace = rows * (3 * self.low * (mlp_width or self.config.text.mlp_width) + 2 * FLOAT * width)
        return Kept(kept, rows * width * FLOAT, kept, workspace)

    @staticmethod
    def plain(kept: int) -> Kept:
        """Of what is no block."""
        return Kept(kept, kept)


def losses_bytes(config: CoCaConfig, *, own_pairs: int, num_processes: int, ring: bool) -> int:
    """Of the contrastive loss: unit embeddings in float32 with their gradients, and tiles of scores.

    Gathered, each process holds those of all; in a ring, its own and the ones that pass by.
    """
    held = 3 * own_pairs if ring else own_pairs * (1 + (num_processes if num_processes > 1 else 0))
    embeddings = 2 * 2 * held * config.embed_dim * FLOAT  # clips and texts, and their gradients
    return embeddings + 2 * min(TILE_SIZE, own_pairs) * TILE_SIZE * FLOAT


def frames_bytes(share: StepShape, part: StepShape, *, image_size: int, frame_size: int) -> int:
    """A process' whole share as it is read, and a micro-batch of it normalised in float32."""
    waiting, normalised = (shape.num_clips * shape.longest_clip for shape in (share, part))
    return 3 * (waiting * frame_size**2 + FLOAT * normalised * image_size**2)
