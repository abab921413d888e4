"""Converted weights compute what open_clip computes with them."""

import open_clip_models
import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import CoCaLoss
from open_clip.model import resize_pos_embed
from torch import Tensor

from coca_video.generate import Rules, greedy
from coca_video.interop.open_clip import infer_config
from coca_video.interop.scheme import from_open_clip
from coca_video.layers.linear import packed_linears
from coca_video.losses import caption_loss, contrastive_loss
from coca_video.models.coca import CoCa
from coca_video.models.decoding import CachedDecoder

BEGIN, END = 49406, 49407
LENGTHS = (3, 40, 76)  # the last fills the context


def converted(theirs) -> CoCa:
    tensors = theirs.state_dict()
    config = infer_config(tensors)
    with torch.device("meta"):
        ours = CoCa(config)
    ours.to_empty(device="cpu").load_state_dict(from_open_clip(tensors, config))
    return ours.eval()


def close(found: Tensor, expected: Tensor, *, tolerance: float = 1e-5) -> None:
    """Relative to the size of what is compared."""
    scale = expected.abs().max()
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=tolerance)


def pictures(num: int, *, size: int) -> Tensor:
    return torch.randn(num, 3, size, size, generator=torch.Generator().manual_seed(2))


class Pair:
    """Both models, and what open_clip computes for a batch."""

    def __init__(self, name: str):
        self.theirs = open_clip_models.full_size(name)
        self.ours = converted(self.theirs)
        text = self.ours.config.text
        self.ids, self.mask = open_clip_models.texts(
            *LENGTHS, context_length=text.context_length, vocab_size=text.vocab_size
        )
        self.pixels = pictures(len(LENGTHS), size=self.ours.config.image.image_size)
        with torch.inference_mode():
            self.expected = self.theirs(self.pixels, self.ids)
            self.found = self.ours(self.pixels.unsqueeze(1), self.ids, self.mask)
            self.logits = self.ours.heads.vocabulary(self.found.caption_features)
        self.predicts = self.mask[:, 1:]  # ours are of the positions before real tokens alone


@pytest.fixture(scope="session")
def b32() -> Pair:
    return Pair("coca_ViT-B-32")


def assert_equal_outputs(pair: Pair) -> None:
    close(pair.found.video_embedding, pair.expected["image_features"])
    close(pair.found.text_embedding, pair.expected["text_features"])
    close(pair.found.logit_scale, pair.expected["logit_scale"])
    close(pair.logits, pair.expected["logits"][pair.predicts])


def assert_equal_losses(pair: Pair) -> None:
    loss = CoCaLoss(caption_loss_weight=2.0, clip_loss_weight=1.0)
    expected = loss(**pair.expected)
    found = pair.found
    contrastive = contrastive_loss(found.video_embedding, found.text_embedding, found.logit_scale)
    vocabulary = pair.ours.heads.vocabulary.weight
    caption = 2 * caption_loss(found.caption_features, vocabulary, found.caption_targets)
    torch.testing.assert_close(torch.stack([contrastive, caption]), torch.stack(expected), rtol=1e-5, atol=0)


def test_b32_outputs(b32):
    assert_equal_outputs(b32)


def test_b32_losses(b32):
    assert_equal_losses(b32)


@torch.inference_mode()
def test_b32_texts_cut_to_the_longest(b32):
    """Ours need no padding to the context: the embedding and the logits of real tokens stay the same."""
    memory, _ = b32.ours.pool(b32.ours.encode_frames(b32.pixels.unsqueeze(1)))
    for row, length in enumerate(LENGTHS[:-1]):
        one = slice(row, row + 1)
        ids, mask = b32.ids[one, :length], b32.mask[one, :length]
        close(b32.ours.encode_text(ids, mask), b32.expected["text_features"][one])
        close(b32.ours.caption_logits(memory[one], ids), b32.expected["logits"][one, :length])


@torch.inference_mode()
def test_b32_id_zero_inside_a_text(b32):
    """The BPE token "!" has the id of padding: with the mask ids != 0 it is hidden as open_clip hides it."""
    ids = b32.ids.clone()
    ids[1, 5:7] = 0
    ids[2, -2] = 0
    close(b32.ours.encode_text(ids, ids != 0), b32.theirs.encode_text(ids))


@torch.inference_mode()
@torch.inference_mode()
def test_b32_greedy_tokens(b32):
    """Ours, by cached decoding, against open_clip's forward pass over the padded text so far."""
    context, num_tokens = b32.ids.shape[1], 12
    ids = torch.zeros(len(b32.pixels), context, dtype=torch.long)
    ids[:, 0] = BEGIN
    latent, embeddings = b32.theirs._encode_image(b32.pixels)
    for i in range(num_tokens):
        logits = b32.theirs(None, ids, latent, embeddings)["logits"][:, i].clone()
        logits[:, END] = float("-inf")
        ids[:, i + 1] = logits.argmax(dim=-1)
    memory, _ = b32.ours.pool(b32.ours.encode_frames(b32.pixels.unsqueeze(1)))
    length = num_tokens + 1
    decoder = CachedDecoder(b32.ours, memory, texts_per_clip=1, max_length=length + 1)
    prompts = torch.full((len(b32.pixels), 1), BEGIN)
    with packed_linears(b32.ours):
        rules = Rules(end=END, max_length=length + 1, min_length=length + 1)
        found = greedy(decoder, prompts, rules=rules)
    assert torch.equal(found.ids[:, 0, :length], ids[:, :length])


def test_b32_video(b32):
    """VideoCoCa: the pooler reads the tokens of all frames, with no weights that pictures do not have."""
    frames = pictures(4, size=224).unflatten(0, (2, 2))
    visual = b32.theirs.visual
    tokens = visual.transformer(visual._embeds(frames.flatten(0, 1)))
    pooled = visual.ln_post(visual.attn_pool(tokens.unflatten(0, (2, 2)).flatten(1, 2)))
    memory, embedding = b32.ours.pool(b32.ours.encode_frames(frames))
    close(embedding, F.normalize(pooled[:, 0] @ visual.proj, dim=-1))
    close(memory.tokens, pooled[:, 1:])


@pytest.mark.slow
def test_l14():
    pair = Pair("coca_ViT-L-14")
    assert_equal_outputs(pair)
    assert_equal_losses(pair)


@pytest.mark.parametrize("sizes", [{"image_width": 128}, {"width": 64, "context_length": 20}])
@torch.inference_mode()
def test_other_sizes(sizes):
    """An image encoder as wide as the text has its attention pooler's projections in one tensor."""
    theirs = open_clip_models.tiny(**sizes)
    ours = converted(theirs)
    context_length = sizes.get("context_length", 12)
    ids, mask = open_clip_models.texts(
        2, 7, context_length, context_length=context_length, vocab_size=open_clip_models.VOCAB_SIZE
    )
    pixels = pictures(3, size=32)
    found, expected = ours(pixels.unsqueeze(1), ids, mask), theirs(pixels, ids)
    close(found.video_embedding, expected["image_features"])
    close(found.text_embedding, expected["text_features"])
    close(ours.heads.vocabulary(found.caption_features), expected["logits"][mask[:, 1:]])


@pytest.mark.parametrize("image_size", [16, 48])
@torch.inference_mode()
def test_resized_positions(image_size):
    """A picture of another size is encoded as by open_clip's model of that size, given the same weights."""
    small, other = open_clip_models.tiny(), open_clip_models.tiny(image_size=image_size)
    tensors = small.state_dict()
    ours, pixels = converted(small), pictures(2, size=image_size)
    resize_pos_embed(tensors, other)
    other.load_state_dict(tensors)
    close(ours.encode_image(pixels), other.encode_image(pixels))
