import pytest
import reference
import torch
from tiny import noise
from torch import nn

from coca_video.layers.transformer import Block, BlockCache, KeyValues, Mlp, MultiHeadAttention, init_linears
from coca_video.ops.packing import Packing


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


MEMORY_MASK = torch.tensor([[True, True, False, True], [True, False, False, False]])
PACKED_LENGTHS = torch.tensor([[5], [1], [3]])
BLOCKS = [  # settings of a block, and its parts
    ({}, ["self", "mlp"]),
    ({"memory_width": 7}, ["self", "cross", "mlp"]),
    ({"memory_width": 7, "norm_memory": True}, ["self", "cross", "mlp"]),
    ({"memory_width": 7, "norm_memory": True, "self_attention": False}, ["cross", "mlp"]),
]
every_block = pytest.mark.parametrize("settings, parts", BLOCKS)


@pytest.mark.parametrize("memory_mask", [None, MEMORY_MASK], ids=["all", "masked"])
@every_block
def test_block_adds_each_part_to_its_normed_input(settings, parts, memory_mask):
    block = with_biases(Block(12, 3, 20, **settings))
    causal = torch.ones(2, 5, 5, dtype=torch.bool).tril()
    visible = torch.ones_like(MEMORY_MASK) if memory_mask is None else memory_mask

    def plain(x, *memory):
        if "self" in parts:
            normed = reference.layer_norm(x, block.norm_self)
            x = x + reference.multi_head(block.self_attention, normed, normed, causal)
        if "cross" in parts:
            read = memory[0]
            if "norm_memory" in settings:
                read = reference.layer_norm(read, block.norm_memory)
            normed, seen = reference.layer_norm(x, block.norm_cross), torch.stack([visible] * 5, dim=1)
            x = x + reference.multi_head(block.cross_attention, normed, read, seen)
        return x + block.mlp(reference.layer_norm(x, block.norm_mlp))

    inputs = [noise(2, 5, 12), noise(2, 4, 7, seed=1)]
    reference.assert_equal_with_gradients(
        lambda *inputs: block(*inputs, causal=True, memory_mask=memory_mask),
        plain,
        *inputs[: 2 if "cross" in parts else 1],
    )


@every_block
def test_block_has_the_weights_of_its_parts_alone(settings, parts):
    names = {name.split(".")[0] for name, _ in Block(12, 3, 20, **settings).named_parameters()}
    expected = {"norm_mlp", "mlp", *(f"norm_{part}" for part in parts)}
    expected |= {f"{part}_attention" for part in parts if part != "mlp"}
    assert names == expected | ({"norm_memory"} if "norm_memory" in settings else set())


@every_block
@torch.no_grad()
def test_steps_equal_one_forward(settings, parts):
    """Three texts a clip, token by token behind a beginning of two; they read their clip's memory as one."""
    block = with_biases(Block(12, 3, 20, **settings))
    x, memory = noise(6, 5, 12), noise(2, 4, 7, seed=1)
    clips = torch.arange(2).repeat_interleave(3)
    whole = block(x, memory[clips], causal=True, memory_mask=MEMORY_MASK[clips])
    room = KeyValues(*(100 * noise(6, 8, 3, 4, seed=seed).detach() for seed in (2, 3)))  # holds anything
    cache = BlockCache(room, *block.read_memory(memory, MEMORY_MASK))
    steps = [block.step(x[:, places], cache, places) for places in torch.arange(5).split([2, 1, 1, 1])]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-5, rtol=0)


def test_the_weights_are_those_of_the_forward():
    attention = with_biases(MultiHeadAttention(12, 3, memory_width=7))
    x, memory = noise(2, 5, 12), noise(2, 4, 7, seed=1)
    weights = attention.weights(x, memory, mask=MEMORY_MASK)
    values = reference.linear(memory, attention.value).unflatten(-1, (3, 4))
    read = torch.einsum("bhls,bshd->blhd", weights, values).flatten(2)
    torch.testing.assert_close(reference.linear(read, attention.out), attention(x, memory, mask=MEMORY_MASK))


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


@pytest.mark.parametrize("mask", [None, torch.tensor([[True] * 9, [False] * 9, [True] * 4 + [False] * 5])])
@pytest.mark.parametrize("num_queries", [1, 2, 40])
def test_few_queries_read_the_memory_unprojected(num_queries, mask):
    """Values and gradients, of the weights too, are those of the path by keys and values."""
    attention = with_biases(MultiHeadAttention(12, 3, memory_width=7))
    x, memory = noise(3, num_queries, 12), noise(3, 9, 7, seed=1)
    assert attention.absorbs(num_queries, memory) is (num_queries < 40)
    reference.assert_equal_with_gradients(
        lambda x, memory, *_: attention(x, memory, mask=mask),
        lambda x, memory, *_: attention.read(x, attention.keys_values(memory), mask=mask),
        x,
        memory,
        *attention.parameters(),
    )


@pytest.mark.parametrize("num_queries", [1, 40])
def test_learned_queries_are_read_against_every_memory(num_queries):
    attention = with_biases(MultiHeadAttention(12, 3, memory_width=7))
    reference.assert_equal_with_gradients(
        lambda x, memory: attention(x, memory),
        lambda x, memory: attention(x.expand(3, -1, -1), memory),
        noise(1, num_queries, 12),
        noise(3, 9, 7, seed=1),
    )


@every_block
def test_a_packed_block_is_a_padded_one(settings, parts):
    block, packing = with_biases(Block(12, 3, 20, **settings)), Packing(torch.arange(6) < PACKED_LENGTHS)
    memory = noise(3, 4, 7, seed=1) if "cross" in parts else None
    reference.assert_equal_with_gradients(
        lambda x: block(packing.pack(x), memory, packing=packing),
        lambda x: packing.pack(block(x, memory, causal=True)),
        noise(3, 6, 12),
    )
