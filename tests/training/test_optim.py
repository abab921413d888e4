import math

import pytest
import torch
from tiny import coca, image_config
from torch import nn

from coca_video.models.image_encoder import ImageStyle
from coca_video.training.optim import (
    GroupConfig,
    GroupConfigs,
    OptimizerConfig,
    OptimizerName,
    Schedule,
    build_optimizer,
    build_schedule,
    last_rates,
    rate_share,
)


def rates(config: OptimizerConfig, *, num_steps: int) -> list[float]:
    """The learning rate of each step, and the one after the last."""
    optimizer = build_optimizer(nn.ModuleDict({"heads": nn.Linear(2, 2)}), config)
    schedule = build_schedule(optimizer, config, num_steps=num_steps)
    found = []
    for _ in range(num_steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_warm_up_then_linear():
    config = OptimizerConfig(lr=8.0, num_warmup_steps=4, schedule=Schedule.linear)
    assert rates(config, num_steps=8) == pytest.approx([2, 4, 6, 8, 8, 6, 4, 2, 0])


def test_warm_up_then_cosine():
    config = OptimizerConfig(lr=8.0, num_warmup_steps=4, schedule=Schedule.cosine)
    eighth = 4 + 4 * math.cos(math.pi / 4)
    assert rates(config, num_steps=8) == pytest.approx([2, 4, 6, 8, 8, eighth, 4, 8 - eighth, 0])


@pytest.mark.parametrize("schedule", [Schedule.cosine, Schedule.linear])
def test_without_warm_up(schedule):
    found = rates(OptimizerConfig(lr=1.0, num_warmup_steps=0, schedule=schedule), num_steps=10)
    assert found[0] == 1 and found[5] == pytest.approx(0.5) and found[10] == pytest.approx(0)


def test_schedules_without_an_end():
    config = OptimizerConfig(lr=8.0, num_warmup_steps=4, schedule=Schedule.constant)
    assert rates(config, num_steps=6) == pytest.approx([2, 4, 6, 8, 8, 8, 8])
    config = OptimizerConfig(lr=8.0, num_warmup_steps=4, schedule=Schedule.rsqrt)
    found = rates(config, num_steps=15)
    assert found[:4] == pytest.approx([2, 4, 6, 8]) and found[15] == pytest.approx(4)
    assert found[3:] == sorted(found[3:], reverse=True)
    config = OptimizerConfig(lr=8.0, num_warmup_steps=0, schedule=Schedule.rsqrt)
    assert rates(config, num_steps=3) == pytest.approx([8, 8 / 2**0.5, 8 / 3**0.5, 4])


@pytest.mark.parametrize("schedule", [Schedule.cosine, Schedule.linear])
def test_a_final_share(schedule):
    config = OptimizerConfig(lr=8.0, num_warmup_steps=2, schedule=schedule, final_share=0.25)
    found = rates(config, num_steps=12)
    assert found[1:3] == [8, 8] and found[7] == pytest.approx(5) and found[12] == pytest.approx(2)
    assert rate_share(config, 100, num_steps=12) == pytest.approx(0.25)


def test_a_share_of_the_steps_warms_up():
    config = OptimizerConfig(lr=8.0, num_warmup_steps=100, warmup_share=0.5, schedule=Schedule.linear)
    assert rates(config, num_steps=8) == pytest.approx([2, 4, 6, 8, 8, 6, 4, 2, 0])
    assert rates(OptimizerConfig(lr=8.0, warmup_share=0.0), num_steps=8)[0] == 8


@pytest.mark.parametrize("again", [False, True])
def test_a_schedule_begins_at_any_step(again):
    """Of a new optimizer, or of one whose rates another schedule has set before."""
    config = OptimizerConfig(lr=8.0, num_warmup_steps=4, schedule=Schedule.linear)
    optimizer = build_optimizer(nn.ModuleDict({"heads": nn.Linear(2, 2)}), config)
    if again:
        build_schedule(optimizer, config, num_steps=8)
    for step in (6, 0):
        schedule = build_schedule(optimizer, config, num_steps=8, step=step)
        found = [optimizer.param_groups[0]["lr"]]
        optimizer.step()
        schedule.step()
        found.append(optimizer.param_groups[0]["lr"])
        assert found == pytest.approx({6: [4, 2], 0: [2, 4]}[step])


def test_a_run_shorter_than_its_warm_up():
    assert rates(OptimizerConfig(lr=1.0, num_warmup_steps=4), num_steps=2) == [0.25, 0.5, 0.75]


@pytest.mark.parametrize("name", OptimizerName)
def test_weight_decay_reaches_matrices_only(name):
    model = coca()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = build_optimizer(model, OptimizerConfig(name=name, lr=0.1, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for n, parameter in model.named_parameters():
        if parameter.ndim <= 1:
            assert torch.equal(parameter, before[n]), n
        else:
            assert (parameter.abs() < before[n].abs()).any(), n
    assert {"heads.log_scale", "unimodal.cls"} <= {n for n, p in model.named_parameters() if p.ndim <= 1}


def test_adamw_decays_by_rate_times_weight():
    layer = nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.zeros_like(layer.weight)
    build_optimizer(nn.ModuleDict({"heads": layer}), OptimizerConfig(lr=0.1, weight_decay=0.5)).step()
    torch.testing.assert_close(layer.weight, before * (1 - 0.1 * 0.5))


def test_frozen_parameters_are_left_out():
    model = coca()
    model.image_encoder.requires_grad_(False)
    optimizer = build_optimizer(model, OptimizerConfig())
    given = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert given == {id(p) for p in model.parameters() if p.requires_grad}


@pytest.mark.parametrize("name", OptimizerName)
def test_steps_lower_a_loss(name):
    torch.manual_seed(0)
    layer, x = nn.Linear(4, 1), torch.randn(64, 4)
    target = x @ torch.tensor([[1.0], [-2.0], [0.5], [0.0]]) + 1
    config = OptimizerConfig(name=name, lr=0.05, weight_decay=0.0)
    optimizer = build_optimizer(nn.ModuleDict({"heads": layer}), config)
    losses = []
    for _ in range(200):
        losses.append((layer(x) - target).square().mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("optimizer", OptimizerName)
def test_groups_have_rates_and_decays_of_their_own(optimizer):
    """With a gradient of zero the first step is the decay alone, rate x decay; half of it in the warm-up."""
    model = coca()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    groups = GroupConfigs(
        image_encoder=GroupConfig(lr=0.01), heads=GroupConfig(weight_decay=0.0), poolers=GroupConfig(0.2, 0.1)
    )
    config = OptimizerConfig(name=optimizer, lr=0.1, weight_decay=0.5, num_warmup_steps=2, groups=groups)
    built = build_optimizer(model, config)
    schedule = build_schedule(built, config, num_steps=10)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    built.step()
    expected = {"image_encoder": 0.01 * 0.5, "heads": 0.0, "poolers": 0.2 * 0.1}
    for n, parameter in model.named_parameters():
        decay = expected.get(n.split(".")[0], 0.1 * 0.5) if parameter.ndim > 1 else 0.0
        torch.testing.assert_close(parameter.detach(), before[n] * (1 - decay / 2), msg=n)
    schedule.step()
    assert sorted(set(schedule.get_last_lr())) == [0.01, 0.1, 0.2]


def test_the_rate_of_a_group_is_what_its_weights_move_by():
    """AdamW's first step is the rate, whatever the gradient."""
    model = nn.ModuleDict({"poolers": nn.Linear(2, 2), "heads": nn.Linear(2, 2)})
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    groups = GroupConfigs(poolers=GroupConfig(lr=0.001))
    optimizer = build_optimizer(model, OptimizerConfig(lr=0.1, weight_decay=0.0, groups=groups))
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    for n, parameter in model.named_parameters():
        rate = 0.001 if n.startswith("poolers.") else 0.1
        torch.testing.assert_close(before[n] - parameter.detach(), torch.full_like(parameter, rate))


@pytest.mark.parametrize("lr", [0.0, -1.0])
def test_a_groups_rate_is_positive(lr):
    with pytest.raises(ValueError, match=f"lr must be positive, got {lr}; loop.tuning.regime freezes groups"):
        GroupConfig(lr=lr)


def test_a_groups_decay_is_not_negative():
    with pytest.raises(ValueError, match="weight_decay must not be negative, got -0.1"):
        GroupConfig(weight_decay=-0.1)


def test_betas_are_two():
    with pytest.raises(ValueError, match=r"betas must be two numbers, got \[0.9\]"):
        OptimizerConfig(betas=[0.9])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"betas": [0.9, 1.0]}, r"betas must be in \[0, 1\), got \[0.9, 1.0\]"),
        ({"eps": 0.0}, "eps must be positive, got 0.0"),
        ({"num_warmup_steps": -1}, "num_warmup_steps must not be negative, got -1"),
        ({"warmup_share": 1.5}, r"warmup_share must be in \[0, 1\], got 1.5"),
        ({"layer_decay": 0.0}, "layer_decay must be above 0 and at most 1, got 0.0"),
        ({"final_share": 2.0}, r"final_share must be in \[0, 1\], got 2.0"),
        ({"final_share": 0.1, "schedule": Schedule.rsqrt}, "is for cosine and linear, got schedule rsqrt"),
    ],
)
def test_settings_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**changes)


@pytest.mark.parametrize("name", OptimizerName)
def test_settings_reach_the_optimizer(name):
    optimizer = build_optimizer(coca(), OptimizerConfig(name, betas=[0.8, 0.95], eps=1e-12))
    assert {(group["betas"], group["eps"]) for group in optimizer.param_groups} == {((0.8, 0.95), 1e-12)}
    own = {OptimizerName.adamw: 1e-8, OptimizerName.adafactor: 1e-30}[name]
    assert build_optimizer(coca(), OptimizerConfig(name)).param_groups[0]["eps"] == own


@pytest.mark.parametrize("style", ["coca", "clip"])
def test_rates_decay_with_the_image_encoders_depth(style):
    """Of two blocks: half behind the second, and so on; nothing else is slower, frozen blocks are counted."""
    model = coca(image=image_config(style=ImageStyle(style)))
    model.image_encoder.blocks[1].norm_mlp.requires_grad_(False)
    groups = GroupConfigs(image_encoder=GroupConfig(lr=0.4))
    optimizer = build_optimizer(model, OptimizerConfig(lr=0.1, layer_decay=0.5, groups=groups))
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        expected = 0.1
        if name.startswith("image_encoder."):
            expected = 0.4 if name.startswith("image_encoder.norm.") else 0.4 / 8
            for block in (0, 1):
                expected = 0.4 / 2 ** (2 - block) if f".blocks.{block}." in name else expected
        if parameter.requires_grad:
            assert rate[id(parameter)] == pytest.approx(expected), name


def test_the_last_rates_of_the_models_groups():
    model = coca()
    model.unimodal.requires_grad_(False)
    groups = GroupConfigs(heads=GroupConfig(lr=0.01))
    config = OptimizerConfig(lr=0.1, num_warmup_steps=2, layer_decay=0.5, groups=groups)
    optimizer = build_optimizer(model, config)
    build_schedule(optimizer, config, num_steps=10)
    expected = {"image_encoder": 0.05, "poolers": 0.05, "multimodal": 0.05, "heads": 0.005}
    assert last_rates(optimizer) == pytest.approx(expected)


def test_scalars_are_apart():
    """fully_shard leaves them whole, and a fused update takes sharded parameters or whole ones."""
    optimizer = build_optimizer(coca(), OptimizerConfig())
    for group in optimizer.param_groups:
        assert len({parameter.ndim == 0 for parameter in group["params"]}) == 1
