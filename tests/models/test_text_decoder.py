import pytest
import torch
from tiny import CONTEXT_LENGTH, VOCAB_SIZE, noise, text_config, texts

from coca_video.models.text_decoder import MultimodalDecoder, UnimodalDecoder


@pytest.fixture
def unimodal() -> UnimodalDecoder:
    torch.manual_seed(0)
    return UnimodalDecoder(text_config()).eval()


@pytest.fixture
def multimodal() -> MultimodalDecoder:
    torch.manual_seed(0)
    return MultimodalDecoder(text_config(), memory_width=10).eval()


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


def test_cls_reads_itself(unimodal):
    """With all else hidden there is still something for its attention to weigh."""
    ids = torch.zeros(1, 4, dtype=torch.long)
    sentence = unimodal(ids, torch.zeros_like(ids, dtype=torch.bool))[1]
    (gradient,) = torch.autograd.grad(sentence[0, 0], unimodal.blocks[0].self_attention.value.weight)
    assert gradient.abs().max() > 0


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
    memory = noise(2, 3, 10)
    before = unimodal(ids, mask)[0]
    after = unimodal(replaced(ids, 0, position), mask)[0]
    for old, new in ((before, after), (multimodal(before, memory), multimodal(after, memory))):
        torch.testing.assert_close(old[0, :position], new[0, :position])
        assert ((old - new)[0, position:5].abs().amax(dim=-1) > 1e-4).all()
        torch.testing.assert_close(old[1], new[1])


def test_the_order_of_tokens_matters(unimodal):
    ids, mask = texts(5)
    assert not torch.allclose(unimodal(ids, mask)[1], unimodal(ids.flip(1), mask)[1], atol=1e-3)


def test_every_logit_depends_on_all_of_the_memory(multimodal):
    text, memory = noise(2, 4, 24), noise(2, 3, 10, seed=1)
    logits = multimodal(text, memory)
    assert logits.shape == (2, 4, VOCAB_SIZE)
    for position in range(4):
        (gradient,) = torch.autograd.grad(logits[0, position].square().sum(), memory, retain_graph=True)
        assert (gradient[0].abs().amax(dim=-1) > 0).all() and (gradient[1] == 0).all()


def test_a_text_longer_than_the_context_is_named(unimodal):
    unimodal(*texts(CONTEXT_LENGTH))
    with pytest.raises(ValueError, match=f"at most {CONTEXT_LENGTH} tokens, got {CONTEXT_LENGTH + 1}"):
        unimodal(*texts(CONTEXT_LENGTH + 1))
