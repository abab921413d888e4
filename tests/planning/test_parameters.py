import pytest
import torch
from tiny import coca, coca_config, temporal_config, text_config

from coca_video.cli import load_option
from coca_video.layers.transformer import Block
from coca_video.models.adaptors import Adaptor
from coca_video.models.coca import CoCaConfig
from coca_video.planning.parameters import count_parameters, optimizer_bytes, state_bytes
from coca_video.training.optim import OptimizerConfig, OptimizerName, build_optimizer


def test_parts_make_up_the_model():
    model = coca(temporal=temporal_config(Adaptor.factorised))
    parameters = count_parameters(model.config)
    total = sum(p.numel() for p in model.parameters())
    parts = parameters.by_part()
    assert sum(parts.values()) == parameters.total == total
    assert parts["vocabulary"] == model.heads.vocabulary.weight.numel()
    assert parts["temporal"] == sum(p.numel() for p in model.temporal.parameters())
    blocks = [
        sum(p.numel() for p in part.parameters()) for part in model.modules() if isinstance(part, Block)
    ]
    assert (parameters.largest_block, parameters.num_root) == (max(blocks), total - sum(blocks))


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_moments_are_those_of_the_optimizer(name):
    model = coca(text=text_config(width=48, num_heads=3))  # some matrices are factored, some too small
    optimizer = build_optimizer(model, OptimizerConfig(name=OptimizerName(name)))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    held = sum(
        value.nbytes
        for state in optimizer.state.values()
        for key, value in state.items()
        if torch.is_tensor(value) and key != "step"
    )
    shapes = [tuple(parameter.shape) for parameter in model.parameters()]
    assert optimizer_bytes(shapes, name) == pytest.approx(held, rel=0.01)


def test_bytes_of_what_each_process_has():
    parameters = count_parameters(coca_config())
    whole = state_bytes(parameters, optimizer="adamw", averaged=True, bfloat16=False)
    assert whole.total == (4 + 4 + 8 + 4) * parameters.total
    frozen = state_bytes(parameters, optimizer="adamw", averaged=False, bfloat16=False, trained={"heads"})
    num_heads = parameters.by_part()["heads"] + parameters.by_part()["vocabulary"]
    assert frozen.total == 4 * parameters.total + (4 + 8) * num_heads
    cast = state_bytes(parameters, optimizer="adamw", averaged=True, bfloat16=True)
    assert cast.total - whole.total == 2 * parameters.num_cast < 2 * parameters.total


def test_shards_are_parts_of_it_and_two_blocks_are_whole():
    parameters = count_parameters(coca_config())
    how = {"optimizer": "adamw", "averaged": True}
    whole = state_bytes(parameters, **how, bfloat16=False)
    shard = state_bytes(parameters, **how, bfloat16=False, shared_by=8)
    assert shard.total - shard.working == pytest.approx(whole.total / 8, abs=4)
    assert shard.working == 8 * parameters.num_root + (2 + 1 + 1) * 4 * parameters.largest_block
    low = state_bytes(parameters, **how, bfloat16=True, shared_by=8)
    assert low.working == 10 * parameters.num_root + ((2 + 1) * 2 + 4) * parameters.largest_block


def test_the_largest_model_of_the_paper():
    parameters = count_parameters(load_option(CoCaConfig, "model", "coca_2b"))
    assert parameters.total == pytest.approx(2212.2e6, rel=1e-4)
    assert parameters.largest_block == pytest.approx(4 * 1408**2 * 2 + 2 * 1408 * 5632, rel=0.01)
