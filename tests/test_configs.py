"""Every YAML file under configs/ makes a whole configuration."""

import itertools

import pytest
import torch
from omegaconf import OmegaConf

from coca_video.cli import CONFIGS, load_config
from coca_video.config import EvaluateConfig, TrainConfig
from coca_video.models.coca import CoCa

FILES = {path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.y*ml")}


def options(group: str) -> list[str]:
    return sorted(name.removeprefix(f"{group}/") for name in FILES if name.startswith(f"{group}/"))


def test_there_is_no_other_file():
    groups = {group: options(group) for group in ("model", "recipe", "evaluate")}
    assert all(groups.values())
    used = {f"{group}/{option}" for group in groups for option in groups[group]}
    assert used | {"train", "evaluate"} == FILES


@pytest.mark.parametrize(("recipe", "model"), itertools.product(options("recipe"), options("model")))
def test_recipes_with_models(recipe, model):
    config = load_config(TrainConfig, "train", [f"recipe={recipe}", f"model={model}"])
    values = OmegaConf.load(CONFIGS / "recipe" / f"{recipe}.yaml")
    assert config.output == values.output and config.loop.num_steps == values.loop.num_steps
    assert [source.path for source in config.data.sources] == [source.path for source in values.data.sources]
    with torch.device("meta"):
        built = CoCa(config.model)
    assert built.heads.text.weight.shape == (config.model.embed_dim, config.model.text.width)


@pytest.mark.parametrize("option", options("evaluate"))
def test_evaluations(option):
    config = load_config(EvaluateConfig, "evaluate", [f"evaluate={option}", "checkpoint=runs/some"])
    assert config.checkpoint == "runs/some" and config.evaluate.manifest.startswith("data/")


@pytest.mark.parametrize("name", sorted(FILES))
def test_they_hold_values_only(name):
    """Nothing names code, and nothing is looked up at run time."""
    text = (CONFIGS / f"{name}.yaml").read_text()
    assert "_target_" not in text and "${" not in text and "coca_video" not in text.split("\n", 1)[1]
