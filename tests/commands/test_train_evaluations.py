"""Evaluations on the way through a training run."""

import json
import shutil
from pathlib import Path

import pytest
from datasets import call, clips_source, pictures_source, refusal, training_arguments
from evaluating import write_evaluation

from coca_video.checkpoint import saved_checkpoints
from coca_video.commands.train import main
from coca_video.run_log import read_evaluations

FIGURE = "own/retrieval/text_to_video/median_rank"  # of four clips


@pytest.fixture(scope="module")
def own(emoji_root, tmp_path_factory) -> Path:
    """An evaluation in a YAML file of one's own."""
    path = tmp_path_factory.mktemp("evaluations") / "own.yaml"
    return write_evaluation(path, emoji_root / "clips" / "pack3.jsonl")


def evaluated(root: Path, output: Path, own: Path) -> list[str]:
    """Six steps with an evaluation after every second one; the last checkpoint is kept, and the best."""
    loop = f"loop={{num_steps: 6, evaluate_every: 2, save_every: 6, keep_last: 1, best: '-{FIGURE}'}}"
    return [*training_arguments(output, pictures_source(root)), loop, f"evaluations=['{own}']"]


@pytest.fixture(scope="module")
def evaluated_run(emoji_root, own, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "evaluated"
    assert call(main, *evaluated(emoji_root, output, own)) == 0
    return output


def steps_kept(output: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in saved_checkpoints(output)]


def test_figures_are_logged_and_the_best_checkpoint_is_kept(evaluated_run):
    lines = read_evaluations(evaluated_run)
    assert [line["step"] for line in lines] == [1, 3, 5]
    assert all(name == "step" or name.startswith("eval/own/retrieval/") for line in lines for name in line)
    ranks = [line[f"eval/{FIGURE}"] for line in lines]
    best = json.loads((evaluated_run / "best.json").read_text())
    assert best == {"step": 2 + 2 * ranks.index(min(ranks)), "figure": f"-{FIGURE}", "value": min(ranks)}
    assert steps_kept(evaluated_run) == sorted({best["step"], 6})
    for step in (2, 4, 6):
        result = evaluated_run / "evaluate" / f"step-{step:07d}" / "own" / "result.json"
        rank = json.loads(result.read_text())["tasks"]["retrieval"]["figures"]["video"]["text_to_video"]
        assert rank["median_rank"] == ranks[step // 2 - 1]


def test_the_choice_of_the_best_may_change_as_a_run_goes_on(evaluated_run, emoji_root, own, tmp_path):
    """Evaluations change no weight: nor do other ones."""
    output = Path(shutil.copytree(evaluated_run, tmp_path / "copy"))
    (output / "best.json").unlink()
    for path in saved_checkpoints(output)[:-1]:
        shutil.rmtree(path)
    assert call(main, *evaluated(emoji_root, output, own), "loop.best=null") == 0
    assert steps_kept(output) == [6] and not (output / "best.json").exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["loop.best=own/foo"], "loop.best=own/foo: no such figure; they begin with own/retrieval/"),
        (
            ["evaluations=[]", "loop.evaluate_every=0", "loop.best=own/foo"],
            "loop.best=own/foo: needs evaluations and loop.evaluate_every, which give the figure",
        ),
        (["loop.evaluate_every=0"], "evaluations and loop.evaluate_every come together, got evaluations=["),
        (["evaluations=[]"], "evaluations and loop.evaluate_every come together, got evaluations=[] and"),
        (
            ["evaluations=[emoji]"],
            "evaluations: emoji needs data/emoji/clips/pack3.jsonl, which does not exist",
        ),
        (
            ["evaluations=[emojis]"],
            "evaluate=emojis: there is no such evaluate; the choices are activitynet,",
        ),
        (["evaluations=['{own}','{own}']"], "evaluations: {own} would be the second one whose figures begin"),
        (["evaluations=[no.yaml]"], "no.yaml: cannot read this file (No such file or directory)"),
        (["data.sources=[{clips}]"], "evaluations: own: this run was trained on {manifest}, the clips to be"),
    ],
)
def test_evaluations_that_would_fail_later(emoji_root, own, tmp_path, capsys, changes, expected):
    manifest = emoji_root / "clips" / "pack3.jsonl"
    names = {"{own}": own, "{manifest}": manifest, "{clips}": clips_source(manifest)}
    for name, value in names.items():
        changes = [change.replace(name, str(value)) for change in changes]
        expected = expected.replace(name, str(value))
    found = refusal(main, *evaluated(emoji_root, tmp_path / "run", own), *changes, capsys=capsys)
    assert found.startswith(expected)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- 3", "{file}: expected settings, as in key: value, got [3]"),
        ("manifest: [", "{file}: while parsing a flow node"),
        ("manifest: x", "{file}: classification, retrieval or captioning must be given, got none of them"),
        ("retrieval: {}", "{file}: manifest: is missing; give manifest=VALUE"),
        ("manifest: x\nretreival: {}", "{file}: retreival: there is no such key; did you mean retrieval?"),
        ("manifest: {manifest}\nclassification: {label: zoo}", "{manifest}: no example is in 'zoo'"),
    ],
)
def test_a_file_that_is_no_evaluation(emoji_root, own, tmp_path, capsys, text, expected):
    file, manifest = tmp_path / "it.yaml", str(emoji_root / "clips" / "pack3.jsonl")
    file.write_text(text.replace("{manifest}", manifest))
    arguments = [*evaluated(emoji_root, tmp_path / "run", own), f"evaluations=['{file}']", "loop.best=null"]
    expected = expected.replace("{file}", str(file)).replace("{manifest}", manifest)
    assert refusal(main, *arguments, capsys=capsys).startswith(expected)
