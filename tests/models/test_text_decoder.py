import warnings

import pytest
import reference
import torch
from tiny import CONTEXT_LENGTH, VOCAB_SIZE, noise, shaken, text_config, texts

from coca_video.models.text_decoder import Memory, MultimodalDecoder, TextStyle, UnimodalDecoder


@pytest.fixture(params=TextStyle)
def style(request) -> TextStyle:
    return request.param


@pytest.fixture
def unimodal(style) -> UnimodalDecoder:
    torch.manual_seed(0)
    return UnimodalDecoder(text_config(style=style)).eval()


@pytest.fixture
def multimodal(style) -> MultimodalDecoder:
    torch.manual_seed(0)
    return MultimodalDecoder(text_config(style=style), memory_width=10).eval()


def replaced(ids: torch.Tensor, row: int, position: int) -> torch.Tensor:
    ids = ids.clone()
    ids[row, position] = ids[row, position] % (VOCAB_SIZE - 1) + 1  # another real token
    return ids


def test_padding_changes_nothing(unimodal):
    short, long = texts(5, 3), texts(5, 3, pad_to=CONTEXT_LENGTH)
    (features, sentence), (long_features, long_sentence) = unimodal(*short), unimodal(*long)
    torch.testing.assert_close(long_sentence, sentence)
    torch.testing.assert_close(long_features[long[1]], features[short[1]])


def test_the_ids_of_the_padding_change_nothing(unimodal):
    ids, mask = texts(5, 3, pad_to=CONTEXT_LENGTH)
    (features, sentence), (other_features, other_sentence) = (
        unimodal(padded, mask) for padded in (ids, torch.where(mask, ids, 7))
    )
    assert torch.equal(other_sentence, sentence)
    assert torch.equal(other_features[mask], features[mask])


def test_a_text_alone_is_what_it_is_in_a_batch(unimodal):
    ids, mask = texts(5, 3)
    alone = unimodal(ids[1:, :3], mask[1:, :3])
    torch.testing.assert_close(alone[1], unimodal(ids, mask)[1][1:])


@pytest.mark.parametrize("position", range(5))
def test_every_real_token_reaches_the_sentence(unimodal, position):
    ids, mask = texts(5, 8)
    before, after = unimodal(ids, mask)[1], unimodal(replaced(ids, 0, position), mask)[1]
    assert (before - after)[0].abs().max() > 1e-3
    assert torch.equal(before[1], after[1])


@pytest.mark.parametrize("lengths", [(5, 3, 0), (CONTEXT_LENGTH, CONTEXT_LENGTH - 1, 3)])
def test_what_cls_reads(style, lengths):
    """The text and itself; in open_clip the text and what stands behind it, itself only behind a full one.

    One layer, so that the value of a key has a gradient exactly where [CLS] weighs it.
    """
    unimodal = shaken(UnimodalDecoder(text_config(style=style, num_unimodal_layers=1)))
    values = []
    unimodal.blocks[0].self_attention.value.register_forward_hook(lambda *call: values.append(call[-1]))
    (gradient,) = torch.autograd.grad((unimodal(*texts(*lengths))[1] ** 3).sum(), values)
    # One text behind another: in open_clip [CLS] stands behind the first pad, in the paper behind the text.
    is_open_clip = style is TextStyle.open_clip
    ends = [min(length + 1, CONTEXT_LENGTH) if is_open_clip else length for length in lengths]
    rows = (gradient != 0).any(dim=-1).split([end + 1 for end in ends])
    for row, length in zip(rows, lengths):
        assert row.nonzero().flatten().tolist() == list(range(length + 1))


@pytest.mark.parametrize("pad_to", [None, CONTEXT_LENGTH])
@pytest.mark.parametrize("lengths", [(5, 3), (CONTEXT_LENGTH, 4)])
def test_open_clip_equals_its_rule_on_full_length(lengths, pad_to):
    """Trimmed or not, texts are what open_clip makes of them padded to its context.

    Its mask for [CLS], the last query: key 0 is visible, any other where the token before it is no padding.
    """
    unimodal = shaken(UnimodalDecoder(text_config(style=TextStyle.open_clip)))
    ids, mask = texts(*lengths, pad_to=CONTEXT_LENGTH)
    visible = torch.ones(2, CONTEXT_LENGTH + 1, CONTEXT_LENGTH + 1, dtype=torch.bool).tril()
    visible[:, -1, 1:] = mask
    cls = (unimodal.cls + unimodal.cls_position).expand(2, 1, -1)
    x = torch.cat([unimodal.tokens(ids) + unimodal.positions, cls], dim=1)
    for block in unimodal.blocks:
        normed = reference.layer_norm(x, block.norm_self)
        x = x + reference.multi_head(block.self_attention, normed, normed, visible)
        x = x + block.mlp(reference.layer_norm(x, block.norm_mlp))
    features, sentence = unimodal(*texts(*lengths, pad_to=pad_to))
    expected = x[:, :-1][mask], reference.layer_norm(x[:, -1], unimodal.norm_cls)
    found = features[mask[:, : features.shape[1]]], sentence
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_features_leave_out_cls_alone(unimodal):
    ids, mask = texts(5, 3, pad_to=8)
    torch.testing.assert_close(unimodal.features(ids)[mask], unimodal(ids, mask)[0][mask])


def test_no_text_token_sees_cls(unimodal):
    ids, mask = texts(5, 3)
    before, sentence = unimodal(ids, mask)
    with torch.no_grad():
        unimodal.cls += torch.randn(unimodal.cls.shape)
    after, other_sentence = unimodal(ids, mask)
    assert torch.equal(before, after) and not torch.allclose(sentence, other_sentence)


@pytest.mark.parametrize("position", range(5))
def test_no_text_token_looks_ahead(unimodal, multimodal, position):
    ids, mask = texts(5, 8)
    memory = Memory(noise(2, 3, 10))
    before = unimodal(ids, mask)[0]
    after = unimodal(replaced(ids, 0, position), mask)[0]
    for old, new in ((before, after), (multimodal(before, memory), multimodal(after, memory))):
        torch.testing.assert_close(old[0, :position], new[0, :position])
        assert ((old - new)[0, position:5].abs().amax(dim=-1) > 1e-4).all()
        torch.testing.assert_close(old[1], new[1])


def test_the_order_of_tokens_matters(unimodal):
    ids, mask = texts(5)
    assert not torch.allclose(unimodal(ids, mask)[1], unimodal(ids.flip(1), mask)[1], atol=1e-3)


def test_every_feature_depends_on_all_of_the_memory(multimodal):
    text, memory = noise(2, 4, 24), noise(2, 3, 10, seed=1)
    features = multimodal(text, Memory(memory))
    assert features.shape == (2, 4, 24)
    for position in range(4):
        (gradient,) = torch.autograd.grad((features[0, position] ** 3).sum(), memory, retain_graph=True)
        assert (gradient[0].abs().amax(dim=-1) > 0).all() and (gradient[1] == 0).all()


def test_hidden_memory_changes_nothing(multimodal):
    text, memory = noise(2, 4, 24), noise(2, 3, 10, seed=1)
    mask = torch.tensor([[True, False, True], [True, True, True]])
    other = torch.where(mask.unsqueeze(-1), memory, 100 * noise(2, 3, 10, seed=2))
    masked = multimodal(text, Memory(memory, mask))
    assert torch.equal(masked, multimodal(text, Memory(other, mask)))
    torch.testing.assert_close(masked[:1], multimodal(text[:1], Memory(memory[:1, mask[0]])))


def test_open_clip_has_two_mlps_a_multimodal_layer():
    torch.manual_seed(0)
    multimodal = shaken(MultimodalDecoder(text_config(style=TextStyle.open_clip), memory_width=10))
    causal = torch.ones(2, 4, 4, dtype=torch.bool).tril()
    everything = torch.ones(2, 4, 3, dtype=torch.bool)

    def plain(x, memory):
        for own, cross in zip(multimodal.blocks[::2], multimodal.blocks[1::2]):
            normed = reference.layer_norm(x, own.norm_self)
            x = x + reference.multi_head(own.self_attention, normed, normed, causal)
            x = x + own.mlp(reference.layer_norm(x, own.norm_mlp))
            normed = reference.layer_norm(x, cross.norm_cross)
            read = reference.layer_norm(memory, cross.norm_memory)
            x = x + reference.multi_head(cross.cross_attention, normed, read, everything)
            x = x + cross.mlp(reference.layer_norm(x, cross.norm_mlp))
        return reference.layer_norm(x, multimodal.norm)

    reference.assert_equal_with_gradients(
        lambda text, memory: multimodal(text, Memory(memory)), plain, noise(2, 4, 24), noise(2, 3, 10, seed=1)
    )


def test_a_text_longer_than_the_context_is_cut(unimodal):
    ids, mask = texts(CONTEXT_LENGTH + 3, 4)
    cut = ids[:, :CONTEXT_LENGTH], mask[:, :CONTEXT_LENGTH]
    with pytest.warns(UserWarning, match=f"cut to the model's context of {CONTEXT_LENGTH} tokens"):
        found = unimodal(ids, mask)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, unimodal(*cut)))
    with pytest.warns(UserWarning):
        assert torch.equal(unimodal.features(ids), unimodal.features(cut[0]))


def test_one_warning_tells_of_all_cut_texts(unimodal):
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        for _ in range(2):
            unimodal(*texts(CONTEXT_LENGTH + 1))
            unimodal.features(texts(CONTEXT_LENGTH + 2)[0])
        unimodal(*texts(CONTEXT_LENGTH))
    assert len(shown) == 1


def test_memories_of_batches_become_one():
    """Tokens that are hidden or missing are hidden in the whole; no mask stays none."""
    mask = torch.tensor([[True, False, True], [True, True, False]])
    parts = [Memory(noise(2, 3, 10), mask), Memory(noise(1, 5, 10, seed=1)), Memory(noise(1, 2, 10, seed=2))]
    for chosen in (parts, parts[1:]):
        whole = Memory.cat(chosen)
        assert whole.tokens.shape[1] == whole.mask.shape[1] == 5
        rows = [row for part in chosen for row in (part[i : i + 1] for i in range(len(part)))]
        assert len(whole) == len(rows)
        for i, row in enumerate(rows):
            real = row.tokens[0] if row.mask is None else row.tokens[row.mask]
            assert torch.equal(whole.tokens[i][whole.mask[i]], real)
    assert Memory.cat([parts[1], parts[1]]).mask is None
