import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from anchored_processes import CONFIG, save_starts, shards_give_the_same, trained_of
from datasets import call, pictures_source, training_arguments
from optimizer_processes import Model
from processes import in_processes
from runs import assert_same, assert_same_runs, checkpoint, run
from torch import Tensor, nn

from coca_video.checkpoint import load_checkpoint
from coca_video.commands.train import main
from coca_video.training.anchor import Anchor
from coca_video.training.optim import (
    GroupConfig,
    GroupConfigs,
    OptimizerConfig,
    OptimizerName,
    build_optimizer,
    build_schedule,
)
from coca_video.training.state_folder import load_state


def build_model() -> nn.ModuleDict:
    """Two of the model's groups, with matrices, biases and norms."""
    torch.manual_seed(0)
    parts = {name: nn.Sequential(nn.Linear(5, 5), nn.LayerNorm(5)) for name in ("unimodal", "heads")}
    return nn.ModuleDict(parts)


def anchored(model: nn.Module, config: OptimizerConfig) -> tuple[Anchor, torch.optim.Optimizer]:
    return Anchor(model, config, trained=trained_of(model)), build_optimizer(model, config)


def give_gradients(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def clones(model: nn.Module) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in model.state_dict().items()}


@pytest.mark.parametrize("name", OptimizerName)
def test_values_against_the_formula(name):
    """Each group with its own rate, of the schedule, and its own strength."""
    own = GroupConfigs(heads=GroupConfig(lr=0.03, anchor=5.0))
    config = OptimizerConfig(name, lr=0.01, num_warmup_steps=2, anchor=20.0, groups=own)
    model, plain = build_model(), build_model()
    anchor, optimizer = anchored(model, config)
    expected = build_optimizer(plain, config)
    schedules = [build_schedule(each, config, num_steps=6) for each in (optimizer, expected)]
    starts = clones(plain)
    for step in range(6):
        give_gradients(model, step)
        give_gradients(plain, step)
        optimizer.step()
        anchor.pull(optimizer)
        expected.step()
        rate = schedules[1].get_last_lr()[0] / 0.01  # of what each group begins with
        with torch.no_grad():
            for key, weight in plain.named_parameters():
                pull = rate * (0.03 * 5.0 if key.startswith("heads") else 0.01 * 20.0)
                weight -= pull * (weight - starts[key])
        for schedule in schedules:
            schedule.step()
        torch.testing.assert_close(clones(model), clones(plain))


def test_without_gradients_weights_come_back():
    model = build_model()
    anchor, optimizer = anchored(model, OptimizerConfig(lr=0.01, anchor=50.0))
    starts = clones(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    for step in range(1, 4):
        anchor.pull(optimizer)
        for key, weight in model.state_dict().items():
            torch.testing.assert_close(weight, starts[key] + 0.5**step)


def test_starts_do_not_move_with_the_model():
    model = build_model()
    anchor, _ = anchored(model, OptimizerConfig(anchor=1.0))
    starts = clones(model)
    assert list(anchor.state_dict()) == list(starts)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    assert_same(anchor.state_dict(), starts)


@pytest.mark.parametrize(
    ("config", "held"),
    [
        (OptimizerConfig(), set()),
        (OptimizerConfig(groups=GroupConfigs(heads=GroupConfig(anchor=1.0))), {"heads"}),
        (OptimizerConfig(anchor=1.0, groups=GroupConfigs(heads=GroupConfig(anchor=0.0))), {"unimodal"}),
        (OptimizerConfig(anchor=1.0), {"unimodal", "heads"}),
    ],
)
def test_only_what_is_pulled_is_held(config, held):
    """Nothing by default."""
    model = build_model()
    anchor, optimizer = anchored(model, config)
    assert {name.partition(".")[0] for name in anchor.state_dict()} == held
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    before = clones(model)
    anchor.pull(optimizer)
    moved = {
        name.partition(".")[0] for name, x in before.items() if not torch.equal(x, model.state_dict()[name])
    }
    assert moved == held


def test_what_is_frozen_is_neither_held_nor_pulled():
    model = build_model()
    model["unimodal"].requires_grad_(False)
    anchor, optimizer = anchored(model, OptimizerConfig(anchor=1.0))
    assert all(name.startswith("heads.") for name in anchor.state_dict())
    anchor.pull(optimizer)


def test_a_part_that_is_frozen_at_first_is_held():
    """A later phase pulls it to where the run began."""
    model, config = build_model(), OptimizerConfig(lr=0.1, anchor=10.0)
    anchor, starts = Anchor(model, config, trained=trained_of(model)), clones(model)
    for frozen in ("unimodal", "heads"):
        model.requires_grad_(True)
        model[frozen].requires_grad_(False)
        optimizer = build_optimizer(model, config)
        give_gradients(model, 0)
        optimizer.step()
        anchor.pull(optimizer)  # the whole way
    assert_same(clones(model), starts)


ANCHORED = [
    "loop.tuning={regime: poolers_then_full, first_share: 0.25}",
    "loop.optimizer.anchor=10",
    "loop.optimizer.groups.image_encoder={anchor: 50}",
]


@pytest.fixture(scope="module")
def unbroken(image_run, emoji_root, tmp_path_factory) -> Path:
    """On from another run: poolers in steps 0 and 1, everything in 2 to 7."""
    output = tmp_path_factory.mktemp("anchored") / "unbroken"
    assert call(main, *fine_tuning(output, image_run, emoji_root)) == 0
    return output


def fine_tuning(output: Path, init: Path, root: Path) -> list[str]:
    return [*training_arguments(output, pictures_source(root)), f"init={init}", *ANCHORED]


def test_it_holds_a_run_back(image_run, emoji_root, tmp_path, unbroken):
    """All groups end nearer to their starts than without it, to the weights of `init`."""
    none = ["loop.optimizer.anchor=0", "loop.optimizer.groups.image_encoder.anchor=0"]
    assert call(main, *fine_tuning(tmp_path, image_run, emoji_root), *none) == 0
    held, free = (load_state(checkpoint(output, 8)) for output in (unbroken, tmp_path))
    starts = load_checkpoint(image_run).model.state_dict()
    assert "anchor" not in free and held["anchor"].keys() <= starts.keys()
    for group in {name.partition(".")[0] for name in held["anchor"]}:
        own = [name for name in held["anchor"] if name.startswith(group)]
        far, near = (
            sum((state["model"][name] - starts[name]).square().sum() for name in own)
            for state in (free, held)
        )
        assert near < 0.9 * far, group


def test_a_resumed_run_is_pulled_to_where_the_run_began(image_run, emoji_root, tmp_path, unbroken):
    """To the last bit; not to the weights that it goes on from."""
    output = Path(shutil.copytree(unbroken, tmp_path / "half"))
    shutil.rmtree(checkpoint(output, 8))
    assert call(main, *fine_tuning(output, image_run, emoji_root)) == 0
    assert_same_runs(output, unbroken)
    starts, saved = load_checkpoint(image_run).model.state_dict(), load_state(checkpoint(output, 8))["anchor"]
    assert saved and all(torch.equal(start, starts[name]) for name, start in saved.items())


def test_a_step_that_is_not_made_does_not_pull(emoji_root, tmp_path):
    state, _ = run(emoji_root, tmp_path, *ANCHORED, "loop.num_steps=4")
    before = clones(state.model)
    state.advance(update=False)
    assert_same(clones(state.model), before)


def test_shards_are_pulled_as_whole_parameters(tmp_path):
    """And one process takes up the starts that they have saved."""
    in_processes(tmp_path, shards_give_the_same, partial(save_starts, tmp_path / "starts"))
    model = Model()
    expected = Anchor(model, CONFIG, trained=trained_of(model)).state_dict()
    found = {name: torch.full_like(x, torch.nan) for name, x in expected.items()}
    dcp.load(found, checkpoint_id=tmp_path / "starts", no_dist=True)
    assert_same(found, expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"anchor": -0.1}, "anchor must not be negative, got -0.1"),
        ({"lr": 0.01, "anchor": 101.0}, "anchor times lr must be at most 1, got 1.01 for image_encoder"),
        (
            {"lr": 0.01, "anchor": 50.0, "groups": GroupConfigs(heads=GroupConfig(lr=0.1))},
            "anchor times lr must be at most 1, got 5 for heads",
        ),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**settings)


def test_a_groups_strength_is_not_negative():
    with pytest.raises(ValueError, match="a group's anchor must not be negative, got -1"):
        GroupConfig(anchor=-1.0)
