import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from datasets import refusal

from coca_video import cli
from coca_video.cli import load_config, pick_device, run
from coca_video.commands.evaluate import main as evaluate_main
from coca_video.commands.train import main as train_main
from coca_video.config import TrainConfig
from coca_video.errors import InputError
from coca_video.evaluation.benchmark import BenchmarkConfig

RECIPE = "recipe=emoji/image"


def message(*overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load_config(TrainConfig, "train", list(overrides))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_values_reach_their_types():
    config = load_config(
        TrainConfig,
        "train",
        [
            RECIPE,
            "model.image.stem=patch",
            "loop.optimizer.lr=2e-3",
            "data.sources=[{kind: clips, path: 'a b=c,d.jsonl', sampling: uniform}]",
            "init='runs/x=1'",
        ],
    )
    assert config.model.image.stem == "patch" and type(config.model.image.stem).__name__ == "Stem"
    assert config.loop.optimizer.lr == 0.002 and config.init == "runs/x=1"
    source = config.data.sources[0]
    assert (source.kind, source.path, source.sampling) == ("clips", "a b=c,d.jsonl", "uniform")
    assert type(source).__name__ == "SourceConfig" and type(source.kind).__name__ == "Kind"


NO_SETTING = "settings are written key=value; a value with = or , needs quotes: key='a=b'"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("loop.num_step=3", "loop.num_step: there is no such key; did you mean num_steps?"),
        ("modle=tiny", "modle: there is no such key; did you mean model?"),
        (
            "data.sources.0.batchsize=3",
            "data.sources[0].batchsize: there is no such key; did you mean batch_size?",
        ),
        (
            "steps=3",
            "steps: there is no such key; "
            "allowed are data, output, model, loop, init, tokenizer, device, evaluations, task",
        ),
        (
            "data.sources=[{kind: clips, path: x, batchsize: 3}]",
            "batchsize: there is no such key; did you mean batch_size?",
        ),
        (
            "loop.optimizer.schedule=sinus",
            "loop.optimizer.schedule: Invalid value 'sinus', "
            "expected one of [cosine, linear, constant, rsqrt]",
        ),
        (
            "data.sources=[{kind: movies, path: x}]",
            "kind: Invalid value 'movies', expected one of [pictures, clips, shards]",
        ),
        ("loop.num_steps=x", "loop.num_steps: Value 'x' of type 'str' could not be converted to Integer"),
        ("output=???", "output: is missing; give output=VALUE"),
        ("data.sources=[{kind: clips}]", "data.sources[0].path: is missing; give data.sources[0].path=VALUE"),
        ("data.sources=[]", "sources must name at least one source, got none"),
        ("data.sources.0.batch_size=0", "batch_size must be positive, got 0"),
        ("loop.save_every=0", "save_every must be at least 1, got 0"),
        ("loop.loss.caption_weight=-1", "loss weights must not be negative, got (-1.0, 1.0)"),
        ("loop.optimizer.betas=[0.9]", "betas must be two numbers, got [0.9]"),
        ("init=a=b", f"init=a=b: {NO_SETTING}"),
        ("loop.num_steps", f"loop.num_steps: {NO_SETTING}"),
        ("--steps", f"--steps: settings are written key=value; keys and defaults stand in {cli.CONFIGS}"),
    ],
)
def test_what_is_said_of_a_bad_setting(override, expected):
    assert message(RECIPE, override) == expected


@pytest.mark.parametrize("recipe", ["emoji/imag", "nothing", "emoji"])
def test_an_unknown_recipe(recipe):
    found = message(f"recipe={recipe}")
    assert found.startswith(f"recipe={recipe}: there is no such recipe; the choices are ")
    assert {"emoji/image", "emoji/video"} <= set(re.split("(?:are|,) ", found))


def test_no_recipe():
    assert message().startswith("recipe= is missing; the choices are emoji/")


def test_an_unknown_model():
    assert message(RECIPE, "model=huge").startswith("model=huge: there is no such model; the choices are ")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("loop: {num_stepz: 3}", "{file}: loop.num_stepz: there is no such key; did you mean num_steps?"),
        (
            "loop: {num_steps: null}",
            "{file}: loop.num_steps: Incompatible value 'None' for field of type 'int'",
        ),
        ("output: here", "data: is missing; give data=VALUE"),
    ],
)
def test_a_recipe_of_ones_own(tmp_path, monkeypatch, content, expected):
    monkeypatch.setattr(cli, "CONFIGS", tmp_path / "configs")
    shutil.copytree(Path(__file__).parent.parent / "configs", tmp_path / "configs")
    file = tmp_path / "configs" / "recipe" / "mine.yaml"
    file.write_text(f"# @package _global_\n{content}\n")
    assert message("recipe=mine") == expected.format(file=file)


def test_a_recipe_that_is_no_yaml(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "CONFIGS", tmp_path / "configs")
    shutil.copytree(Path(__file__).parent.parent / "configs", tmp_path / "configs")
    file = tmp_path / "configs" / "recipe" / "mine.yaml"
    file.write_text("loop: {num_steps: 3\n")
    assert f'"{file}", line 1' in message("recipe=mine")


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("cuda:99", "abacus"):
        with pytest.raises(InputError, match=f"device={name}: not available") as caught:
            pick_device(name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("main", [train_main, evaluate_main])
def test_commands_refuse_in_one_line(main, capsys):
    assert refusal(main, "nonsense=1", capsys=capsys).count("\n") == 0
    assert "is missing; the choices are " in refusal(main, capsys=capsys)


def test_a_device_that_is_not_here(tmp_path, capsys):
    found = refusal(train_main, RECIPE, f"output={tmp_path / 'run'}", "device=cuda:99", capsys=capsys)
    assert found.startswith("device=cuda:99: not available")
    assert not (tmp_path / "run").exists()


def outcome(main) -> int:
    with pytest.raises(SystemExit) as end:
        run(main)
    return end.value.code


def test_exit_codes(capsys):
    def refuse():
        raise InputError("key: is bad")

    def interrupt():
        raise KeyboardInterrupt

    assert [outcome(main) for main in (lambda: None, lambda: 0, lambda: 3)] == [0, 0, 3]
    assert outcome(refuse) == 2 and capsys.readouterr().err == "error: key: is bad\n"
    assert outcome(interrupt) == 130 and capsys.readouterr().err == "interrupted\n"


def test_a_mistake_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 // 0)


def test_a_closed_pipe_is_no_error(tmp_path):
    """As `caption ... | head -1`: the reader goes away while we write."""
    script = tmp_path / "script.py"
    script.write_text("from coca_video.cli import run\nrun(lambda: print('line\\n' * 100_000))\n")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- 3", "expected settings, as in key: value, got [3]"),
        ("manifest: [", "while parsing a flow node"),
        ("manifest: x", "classification, retrieval, captioning or head must be given, got none of them"),
        ("retrieval: {}", "manifest: is missing; give manifest=VALUE"),
        ("manifest: x\nretreival: {}", "retreival: there is no such key; did you mean retrieval?"),
        (None, "cannot read this file (No such file or directory)"),
    ],
)
def test_an_option_in_a_file_of_one_s_own(tmp_path, text, expected):
    path = tmp_path / "own.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError) as caught:
        cli.load_option(BenchmarkConfig, "evaluate", str(path))
    assert str(caught.value).startswith(f"{path}: {expected}")
    path.write_text("manifest: x\nretrieval: {}")
    assert cli.load_option(BenchmarkConfig, "evaluate", str(path)).manifest == "x"


@dataclass
class Own:
    size: int = 3


def test_options_that_are_dataclasses():
    """By their names, beside the group's files; their keys are checked as a file's are."""
    load = partial(cli.load_config, TrainConfig, "train", options={"task": {"own": Own}})
    assert load([RECIPE]).task is None
    assert load([RECIPE, "task=own", "task.size=4"]).task == Own(4)
    for changes, expected in (
        (["task=own", "task.sise=4"], "task.sise: there is no such key; did you mean size?"),
        (["task=own", "task.size=x"], "task.size: Value 'x' of type 'str' could not be converted to Integer"),
        (["task=other"], "task=other: there is no such task; the choices are own"),
        (["task.size=4"], "task.size: there is no task that could have it; the choices are own"),
    ):
        with pytest.raises(InputError) as caught:
            load([RECIPE, *changes])
        assert str(caught.value) == expected
