"""Every YAML file under configs/ makes a whole configuration."""

import itertools

import pytest
import torch
from omegaconf import OmegaConf

from coca_video.cli import CONFIGS, load_config
from coca_video.commands.task_runs import load_train_config
from coca_video.config import EvaluateConfig, ProbeCommandConfig, TrainConfig
from coca_video.models.coca import CoCa

FILES = {path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.y*ml")}


def options(group: str) -> list[str]:
    return sorted(name.removeprefix(f"{group}/") for name in FILES if name.startswith(f"{group}/"))


def test_there_is_no_other_file():
    groups = {group: options(group) for group in ("model", "recipe", "evaluate", "probe", "cluster")}
    assert all(groups.values())
    used = {f"{group}/{option}" for group in groups for option in groups[group]}
    assert used | {"train", "evaluate", "probe", "submit"} == FILES


def recipes_with_models() -> list[tuple[str, str | None]]:
    """A recipe that names its model with that one (None), the others with each."""
    files = {recipe: (CONFIGS / "recipe" / f"{recipe}.yaml").read_text() for recipe in options("recipe")}
    named = {recipe for recipe, text in files.items() if "/model:" in text}
    named |= {recipe for recipe, text in files.items() if any(f"  - {each}\n" in text for each in named)}
    own = [(recipe, None) for recipe in sorted(named)]
    others = [recipe for recipe in files if recipe not in named]
    return own + list(itertools.product(others, options("model")))


@pytest.mark.parametrize(("recipe", "model"), recipes_with_models())
def test_recipes_with_models(recipe, model):
    config = load_train_config([f"recipe={recipe}", *([f"model={model}"] if model else [])])
    values = OmegaConf.load(CONFIGS / "recipe" / f"{recipe}.yaml")
    assert config.output == values.output
    for name in ("num_steps", "num_epochs"):
        given = values.get("loop", {}).get(name, getattr(config.loop, name))
        assert getattr(config.loop, name) == given
    if "data" in values:
        assert [s.path for s in config.data.sources] == [s.path for s in values.data.sources]
    with torch.device("meta"):
        built = CoCa(config.model)
    assert built.heads.text.weight.shape == (config.model.embed_dim, config.model.text.width)


def test_a_size_has_what_all_sizes_share():
    config = load_config(TrainConfig, "train", ["recipe=pretrain_image/2b"])
    assert config.model.text.width == 1408 and config.output == "runs/pretrain_image/2b"
    assert config.loop.num_steps == 500_000 and sum(s.batch_size for s in config.data.sources) == 65_536
    assert config.loop.parallel.sharing == "fsdp"


@pytest.mark.parametrize("option", options("evaluate"))
def test_evaluations(option):
    config = load_config(EvaluateConfig, "evaluate", [f"evaluate={option}", "checkpoint=runs/some"])
    assert config.checkpoint == "runs/some" and config.evaluate.manifest.startswith("data/")


@pytest.mark.parametrize("option", options("probe"))
def test_probes(option):
    config = load_config(ProbeCommandConfig, "probe", [f"probe={option}", "checkpoint=runs/some"])
    assert config.checkpoint == "runs/some" and config.probe.test.path.startswith("data/")


@pytest.mark.parametrize("name", sorted(FILES))
def test_they_hold_values_only(name):
    """Nothing names code, and nothing is looked up at run time."""
    text = (CONFIGS / f"{name}.yaml").read_text()
    assert "_target_" not in text and "${" not in text and "coca_video" not in text.split("\n", 1)[1]
