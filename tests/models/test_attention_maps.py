import pytest
import torch
from tiny import coca, image_config, noise, text_config, texts
from torch import Tensor, nn

from coca_video.layers.pooler import AttentionalPooler
from coca_video.models.adaptors import Adaptor, TemporalConfig
from coca_video.models.attention_maps import AttentionMaps, attention_maps
from coca_video.models.coca import CoCa
from coca_video.models.image_encoder import ImageStyle
from coca_video.models.poolers import PoolerStyle
from coca_video.models.text_decoder import TextStyle

FRAMES = (2, 3, 3, 16, 16)  # 'b t c h w', four patches a frame
FRAME_MASK = torch.tensor([[True, True, False], [True, True, True]])
NUM_FRAMES, NUM_TOKENS = (2, 3), (5, 3)
POOLERS = [(style, queries) for style in PoolerStyle for queries in (0, 5)]
POOLERS.remove((PoolerStyle.shared, 0))


def model_of(adaptor: Adaptor, style=PoolerStyle.cascade, num_queries=5, **changes) -> CoCa:
    """With time positions and a temporal transformer that do something."""
    num_positions = 0 if adaptor is Adaptor.mean else 3
    temporal = TemporalConfig(adaptor, num_positions=num_positions, num_layers=1)
    model = coca(temporal=temporal, poolers=style, num_caption_queries=num_queries, **changes)
    for parameter in model.temporal.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def open_clip_like(adaptor: Adaptor, style: PoolerStyle, num_queries: int) -> CoCa:
    parts = {"image": image_config(style=ImageStyle.clip), "text": text_config(style=TextStyle.open_clip)}
    return model_of(adaptor, style, num_queries, **parts)


def maps_of_batch(model: CoCa, **settings) -> AttentionMaps:
    return attention_maps(model, noise(*FRAMES), *texts(*NUM_TOKENS), FRAME_MASK, **settings)


@pytest.mark.parametrize("layer", [None, 1])
@pytest.mark.parametrize("make", [model_of, open_clip_like])
@pytest.mark.parametrize("style, num_queries", POOLERS)
@pytest.mark.parametrize("adaptor", Adaptor)
def test_maps_follow_every_path_and_padding_changes_nothing(adaptor, style, num_queries, make, layer):
    model = make(adaptor, style, num_queries)
    maps, frames, (ids, _) = maps_of_batch(model, layer=layer), noise(*FRAMES), texts(*NUM_TOKENS)
    assert maps.embedding.shape == (2, 3, 2, 2) and maps.tokens.shape == (2, 5, 3, 2, 2)
    for i, (t, l) in enumerate(zip(NUM_FRAMES, NUM_TOKENS)):
        embedding, tokens = reference(model, frames[i : i + 1, :t], ids[i : i + 1, :l], layer)
        torch.testing.assert_close(maps.embedding[i, :t], embedding, atol=1e-5, rtol=0)
        torch.testing.assert_close(maps.tokens[i, :l, :t], tokens, atol=1e-5, rtol=0)
    assert (maps.embedding[0, 2:] == 0).all() and (maps.tokens[0, :, 2:] == 0).all()
    assert (maps.tokens[1, 3:] == 0).all()


@torch.no_grad()
def reference(model: CoCa, frames: Tensor, ids: Tensor, layer: int | None) -> tuple[Tensor, Tensor]:
    """Maps 't h w' and 'l t h w' of one clip and one text without padding, path by path."""
    encoded, num_frames = model.encode_frames(frames), frames.shape[1]
    adaptor = model.config.temporal.adaptor
    read = cross_attention(model, model.pool(encoded)[0].tokens, ids, layer)
    if adaptor is Adaptor.attentional:
        encoded = model.temporal.positions(encoded)
    num_tokens = encoded.shape[2]
    embedding = torch.zeros(num_frames, num_tokens)
    tokens = torch.zeros(len(read), num_frames, num_tokens)
    if adaptor in (Adaptor.attentional, Adaptor.joint):
        memory, summary = pooled_from(model, encoded.flatten(1, 2))
        for s in range(num_frames * num_tokens):
            t, n = divmod(s, num_tokens)
            embedding[t, n] = summary[s]
            for l, row in enumerate(read):
                tokens[l, t, n] = sum(row[q] * memory[q][s] for q in range(len(row)))
    else:
        for t in range(num_frames):
            memory, summary = pooled_from(model, encoded[:, t])
            for n in range(num_tokens):
                embedding[t, n] = summary[n] / num_frames
                for l, row in enumerate(read):
                    if adaptor is Adaptor.factorised:
                        tokens[l, t, n] = row[t] * summary[n]
                    else:
                        tokens[l, t, n] = sum(row[q] * memory[q][n] for q in range(len(row))) / num_frames
    patches = slice(num_tokens - 4, None)
    return embedding[:, patches].unflatten(-1, (2, 2)), tokens[..., patches].unflatten(-1, (2, 2))


def pooled_from(model: CoCa, tokens: Tensor) -> tuple[list, list]:
    """What the poolers read of tokens '1 s d': a list over s for each memory token, and for the summary."""
    caption, contrastive = model.poolers.caption, model.poolers.contrastive
    num_tokens = tokens.shape[1]
    first = [] if caption is None else pooler_weights(caption, tokens)
    if model.poolers.style is PoolerStyle.shared:
        return first[1:], first[0]
    if caption is None:
        one_hot = [[float(s == q) for s in range(num_tokens)] for q in range(num_tokens)]
        return one_hot, pooler_weights(contrastive, tokens)[0]
    if model.poolers.style is PoolerStyle.parallel:
        return first, pooler_weights(contrastive, tokens)[0]
    second = pooler_weights(contrastive, caption(tokens))[0]
    return first, [sum(second[q] * first[q][s] for q in range(5)) for s in range(num_tokens)]


def pooler_weights(pooler: AttentionalPooler, tokens: Tensor) -> list:
    queries = pooler.norm_queries(pooler.queries).unsqueeze(0)
    return mean_of_heads(pooler.attention.weights(queries, pooler.norm_tokens(tokens)))


def cross_attention(model: CoCa, memory: Tensor, ids: Tensor, layer: int | None) -> list:
    text, layers = model.unimodal.features(ids), []
    for block in model.multimodal.blocks:
        if block.cross_attention is not None:
            x = text
            if block.self_attention is not None:
                x = x + block.self_attention(block.norm_self(x), causal=True)
            weights = block.cross_attention.weights(block.norm_cross(x), block.norm_memory(memory))
            layers.append(torch.tensor(mean_of_heads(weights)))
        text = block(text, memory, causal=True)
    assert len(layers) == 2
    return (sum(layers) / 2 if layer is None else layers[layer]).tolist()


def mean_of_heads(weights: Tensor) -> list:
    return (sum(weights[0]) / weights.shape[1]).tolist()


@pytest.mark.parametrize("adaptor", Adaptor)
def test_shares_sum_to_one(adaptor):
    maps, (_, mask) = maps_of_batch(model_of(adaptor)), texts(*NUM_TOKENS)
    torch.testing.assert_close(maps.embedding.sum(dim=(1, 2, 3)), torch.ones(2))
    torch.testing.assert_close(maps.tokens.sum(dim=(2, 3, 4)), mask.float())
    torch.testing.assert_close(maps.caption(mask).sum(dim=(1, 2, 3)), torch.ones(2))


def test_a_class_tokens_share_is_left_out():
    maps = maps_of_batch(open_clip_like(Adaptor.attentional, PoolerStyle.shared, 5))
    assert (maps.embedding.sum(dim=(1, 2, 3)) < 0.99).all()


def test_the_captions_map_is_the_mean_of_its_tokens():
    maps, (_, mask) = maps_of_batch(model_of(Adaptor.attentional)), texts(*NUM_TOKENS)
    for i, length in enumerate(NUM_TOKENS):
        expected = sum(maps.tokens[i, :length]) / length
        torch.testing.assert_close(maps.caption(mask)[i], expected)


@torch.no_grad()
def looks_at_bright_patches(token: int, **changes) -> CoCa:
    """Patches are told apart by their brightness alone, texts by whether they hold `token`."""
    model = coca(temporal=TemporalConfig(Adaptor.attentional), **changes)
    blocks = [*model.image_encoder.blocks, *model.unimodal.blocks, *model.multimodal.blocks]
    for block in blocks:  # nothing is added to the residual stream
        for layer in (block.self_attention, block.mlp):
            layer.out.weight.zero_()
    for part in (model.image_encoder.positions.table, model.unimodal.positions, model.unimodal.tokens.weight):
        part.zero_()
    first_only(model.image_encoder.patches.project.weight)
    model.unimodal.tokens.weight[token, 0] = 1.0
    for block in model.multimodal.blocks:
        first_only(block.cross_attention.query.weight)
        first_only(block.cross_attention.key.weight)
        block.cross_attention.out.weight.zero_()
    for pooler in (model.poolers.caption, model.poolers.contrastive):
        if pooler is not None:
            first_only(pooler.attention.query.weight)
            first_only(pooler.attention.key.weight)
            pooler.queries.zero_()
            pooler.queries[:, 0] = 1.0
    return model


def first_only(weight: Tensor) -> None:
    """Every head's first feature is the input's first feature (channel 0 of every pixel, for the patches)."""
    weight.zero_()
    heads = 3 if weight.ndim == 2 else 1
    weight.unflatten(0, (heads, -1))[:, 0, 0] = 1.0


def test_a_token_looks_where_it_was_made_to_look():
    model = looks_at_bright_patches(7, num_caption_queries=0, poolers=PoolerStyle.parallel)
    frames = torch.zeros(1, 4, 3, 16, 16)
    frames[0, 2, :, :8, 8:] = 1.0  # frame 2, the patch at the upper right
    ids = torch.tensor([[3, 7, 5]])
    maps = attention_maps(model, frames, ids, ids > 0)
    for looked in (maps.tokens[0, 1], maps.embedding[0]):
        assert looked[2, 0, 1] > 0.5 and looked.argmax() == 2 * 4 + 1
    for indifferent in (maps.tokens[0, 0], maps.tokens[0, 2]):
        torch.testing.assert_close(indifferent, torch.full((4, 2, 2), 1 / 16))


def test_what_a_memory_looked_at_is_what_captions_look_at():
    model = looks_at_bright_patches(7)
    frames = torch.zeros(1, 4, 3, 16, 16)
    frames[0, 3, :, 8:, :8] = 1.0
    ids = torch.tensor([[3, 7, 5]])
    maps = attention_maps(model, frames, ids, ids > 0)
    for looked in (maps.caption(ids > 0)[0], maps.embedding[0]):
        assert looked[3, 1, 0] > 0.5 and looked.argmax() == 3 * 4 + 2


def test_nothing_is_left_on_the_model():
    model, (ids, mask) = coca(), texts(5, 3)
    attention_maps(model, noise(*FRAMES), ids, mask)
    with pytest.raises(IndexError):
        attention_maps(model, noise(*FRAMES), ids + 10_000, mask)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(ValueError, match="layer must be from 0 to 1, got 2"):
        maps_of_batch(coca(), layer=2)
    with pytest.raises(ValueError, match="at most 12 tokens, the model's context, got 13"):
        attention_maps(coca(), noise(*FRAMES), *texts(13, 3))
