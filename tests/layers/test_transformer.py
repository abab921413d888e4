import pytest
import reference
import torch
from tiny import noise
from torch import nn

from coca_video.layers.transformer import Block, Mlp, MultiHeadAttention, init_linears


def with_biases(module: nn.Module) -> nn.Module:
    """Every bias and norm away from its 0 or 1, so that none can be forgotten."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=0.5)
    return module


def test_self_attention_equals_the_reference():
    attention = with_biases(MultiHeadAttention(12, 3))
    mask = torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(0)) < 0.7
    reference.assert_equal_with_gradients(
        lambda x: attention(x, mask=mask),
        lambda x: reference.multi_head(attention, x, x, mask),
        noise(2, 5, 12),
    )


def test_cross_attention_equals_the_reference():
    attention = with_biases(MultiHeadAttention(12, 3, memory_width=7))
    mask = torch.tensor([[True, True, False, True], [True, False, False, False]])
    visible = torch.stack([mask] * 5, dim=1)
    reference.assert_equal_with_gradients(
        lambda x, memory: attention(x, memory, mask=mask),
        lambda x, memory: reference.multi_head(attention, x, memory, visible),
        noise(2, 5, 12),
        noise(2, 4, 7, seed=1),
    )


def test_width_must_be_a_multiple_of_num_heads():
    with pytest.raises(ValueError, match="width 12 and num_heads 5"):
        MultiHeadAttention(12, 5)


def test_mlp_uses_the_exact_gelu():
    mlp = with_biases(Mlp(4, 6))

    def plain(x):
        hidden = reference.linear(x, mlp.hidden)
        return reference.linear(hidden * (1 + torch.erf(hidden / 2**0.5)) / 2, mlp.out)

    reference.assert_equal_with_gradients(mlp, plain, noise(2, 3, 4))


def test_block_adds_each_part_to_its_normed_input():
    block = with_biases(Block(12, 3, 20, memory_width=7))
    causal = torch.ones(2, 5, 5, dtype=torch.bool).tril()
    everything = torch.ones(2, 5, 4, dtype=torch.bool)

    def plain(x, memory):
        normed = reference.layer_norm(x, block.norm_self)
        x = x + reference.multi_head(block.self_attention, normed, normed, causal)
        normed = reference.layer_norm(x, block.norm_cross)
        x = x + reference.multi_head(block.cross_attention, normed, memory, everything)
        return x + block.mlp(reference.layer_norm(x, block.norm_mlp))

    reference.assert_equal_with_gradients(
        lambda x, memory: block(x, memory, causal=True), plain, noise(2, 5, 12), noise(2, 4, 7, seed=1)
    )


def test_block_without_memory_has_no_cross_attention():
    names = {name.split(".")[0] for name, _ in Block(12, 3, 20).named_parameters()}
    assert names == {"norm_self", "self_attention", "norm_mlp", "mlp"}


def test_dropout_is_for_training_only():
    torch.manual_seed(0)
    block, x = Block(12, 3, 20, dropout=0.5), noise(2, 5, 12)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))
    block.train().dropout.p = 1.0
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("width", [6, 12, 20])
def test_linears_start_as_isometries(width):
    torch.manual_seed(0)
    layer = nn.Linear(12, width)
    init_linears(nn.Sequential(layer))
    x = torch.randn(5, 12) if width >= 12 else torch.randn(5, width) @ layer.weight  # within what it keeps
    torch.testing.assert_close(layer(x).norm(dim=-1), x.norm(dim=-1))
    assert (layer.bias == 0).all()


def test_the_chain_of_linears_in_attention_keeps_lengths():
    """One visible token makes attention linear: its values, carried to the output unsqueezed."""
    torch.manual_seed(0)
    attention, x = MultiHeadAttention(12, 3), torch.randn(5, 1, 12)
    init_linears(attention)
    torch.testing.assert_close(attention(x).norm(dim=-1), x.norm(dim=-1))
