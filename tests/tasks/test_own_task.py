"""The example of docs/tasks.md, as a user would run it."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from task_sets import COLOURS, TaskSets

from coca_video.cli import load_config
from coca_video.commands.task_runs import load_train_config
from coca_video.config import EvaluateConfig
from coca_video.data.manifest import ClipRecord, write_manifest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
TAGS = {"red": "warm, colour", "green": "colour", "blue": "cold, colour", "gray": ""}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The script, and four pictures with their tags."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_task.py").write_text(
        re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1], encoding="utf-8"
    )
    for name, colour in COLOURS.items():
        Image.new("RGB", (16, 16), colour).save(folder / f"{name}.png")
    for split in ("train", "test"):
        records = [ClipRecord(folder / f"{name}.png", name, {"tags": TAGS[name]}) for name in COLOURS]
        write_manifest(folder / f"{split}.jsonl", records * (2 if split == "train" else 1))
    return folder


def ran(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "my_task.py", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_it_trains_and_is_evaluated(folder):
    """With readers in processes of their own, to which a class of a script must travel."""
    given = TaskSets(folder).arguments(folder / "run", None, manifest="train")
    changes = ["task=tags", "data.num_workers=1", "loop.num_steps=40", "loop.save_every=40"]
    trained = ran(folder, "train", *given, *changes, "loop.optimizer.lr=0.02", "loop.ema_decay=0")
    assert trained.returncode == 0, trained.stderr
    config = json.loads((folder / "run" / "checkpoints" / "step-0000040" / "config.json").read_text())
    assert config["task"] == {
        "name": "tags",
        "blind": False,
        "label": "tags",
        "classes": ["cold", "colour", "warm"],
    }
    found = ran(
        folder,
        *["evaluate", "checkpoint=run", "evaluate=shapes/vqa", "evaluate.manifest=test.jsonl"],
        *["output=result", "device=cpu"],
    )
    assert found.returncode == 0, found.stderr
    head = json.loads((folder / "result" / "result.json").read_text())["tasks"]["head"]
    assert head["num_evaluated"] == 4 and head["figures"]["video"]["mAP"] == 100
    predicted = [
        json.loads(line) for line in (folder / "result" / "predictions.jsonl").read_text().splitlines()
    ]
    assert len(predicted) == 4


def test_average_precision(folder):
    """True ones on the first and third place of four: (1 + 2/3) / 2."""
    names: dict = {"__name__": "example"}
    exec((folder / "my_task.py").read_text(), names)
    scores, truth = torch.tensor([0.1, 0.9, 0.4, 0.6]), torch.tensor([0.0, 1.0, 1.0, 0.0])
    assert names["average_precision"](scores, truth) == pytest.approx(5 / 6)


def commands(script: str) -> list[list[str]]:
    """Settings of each command of the text that begins so."""
    lines = re.findall(rf"^python {re.escape(script)}(.*)$", TEXT, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def test_the_commands_are_whole_configurations(folder):
    """Of the text's commands, without the data that they need."""
    example: dict = {"__name__": "example"}
    exec((folder / "my_task.py").read_text(), example)
    trained = [*commands("tools/train.py"), *commands("my_task.py train")]
    names = [load_train_config(settings, [example["Tags"]]).task.name for settings in trained]
    assert names[-1] == "tags" and len(names) > 3
    evaluated = [*commands("tools/evaluate.py"), *commands("my_task.py evaluate")]
    heads = [load_config(EvaluateConfig, "evaluate", settings).evaluate.head for settings in evaluated]
    assert len(heads) > 2 and all(heads)


def test_it_is_as_short_as_it_says():
    code = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 60
    assert max(map(len, code.splitlines())) <= 110
