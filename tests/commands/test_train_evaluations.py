"""Evaluations on the way through a training run."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import call, clips_source, pictures_source, refusal, training_arguments
from evaluating import write_evaluation
from heads import ANSWERS, question_set, save_taught

from coca_video.checkpoint import saved_checkpoints
from coca_video.cli import load_config
from coca_video.commands.evaluations import open_evaluations
from coca_video.commands.train import main
from coca_video.config import TrainConfig
from coca_video.errors import InputError
from coca_video.run_log import read_evaluations
from coca_video.tasks.question_answering import QuestionAnswering

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


def test_clips_that_were_trained_on(emoji_root, own, tmp_path, capsys):
    """Said before the first step, and before anything is written."""
    manifest = emoji_root / "clips" / "pack3.jsonl"
    arguments = evaluated(emoji_root, tmp_path / "run", own)
    found = refusal(main, *arguments, f"data.sources=[{clips_source(manifest)}]", capsys=capsys)
    assert found == f"evaluations: own: this run was trained on {manifest}, the clips to be evaluated"
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def config(emoji_root, own) -> TrainConfig:
    return load_config(TrainConfig, "train", evaluated(emoji_root, Path("run"), own))


@pytest.mark.parametrize(
    ("names", "loop", "expected"),
    [
        (["{own}"], {"best": "own/foo"}, "loop.best=own/foo: no such figure; they begin with own/retrieval/"),
        (
            [],
            {"evaluate_every": 0, "best": "own/foo"},
            "loop.best=own/foo: needs evaluations and loop.evaluate_every, which give the figure",
        ),
        (["{own}"], {"evaluate_every": 0}, "evaluations and loop.evaluate_every come together, got evaluat"),
        (
            [],
            {},
            "evaluations and loop.evaluate_every come together, got evaluations=[] and evaluate_every=2",
        ),
        (["emoji"], {}, "evaluations: emoji needs data/emoji/clips/pack3.jsonl, which does not exist"),
        (["emojis"], {}, "evaluate=emojis: there is no such evaluate; the choices are activitynet, "),
        (["{own}", "{own}"], {}, "evaluations: {own} would be the second one whose figures begin with own/"),
    ],
)
def test_evaluations_that_would_fail_later(config, own, tmp_path, monkeypatch, names, loop, expected):
    monkeypatch.chdir(tmp_path)  # there is no data here
    changed = replace(config, loop=replace(config.loop, **loop))
    changed.evaluations = [name.replace("{own}", str(own)) for name in names]
    with pytest.raises(InputError) as caught:
        open_evaluations(changed, torch.device("cpu"), trained_on=[])
    assert str(caught.value).startswith(expected.replace("{own}", str(own)))


def test_labels_that_are_not_there(config, emoji_root, tmp_path):
    path, manifest = tmp_path / "it.yaml", emoji_root / "clips" / "pack3.jsonl"
    path.write_text(f"manifest: {manifest}\nclassification: {{label: zoo}}")
    changed = replace(config, evaluations=[str(path)], loop=replace(config.loop, best=None))
    with pytest.raises(InputError, match=f"^{manifest}: no example is in 'zoo'$"):
        open_evaluations(changed, torch.device("cpu"), trained_on=[])


# Of a learned task


@pytest.fixture
def with_head(config, tmp_path) -> TrainConfig:
    """Evaluates the head of questions."""
    path, manifest = tmp_path / "asked.yaml", question_set(tmp_path / "data")
    path.write_text(f"manifest: {manifest}\nhead: {{}}\nloading: {{num_workers: 0}}")
    loop = replace(config.loop, best="asked/head/accuracy")
    return replace(config, evaluations=[str(path)], loop=loop, output=str(tmp_path / "run"))


def test_figures_of_a_head(with_head, tmp_path):
    task = QuestionAnswering(classes=ANSWERS)
    checkpoint = save_taught(tmp_path / "run" / "step-0000002", task)
    evaluation = open_evaluations(with_head, torch.device("cpu"), trained_on=[], task=task)
    figures = evaluation(checkpoint)
    result = json.loads((tmp_path / "run/evaluate/step-0000002/asked/result.json").read_text())
    accuracy = result["tasks"]["head"]["figures"]["video"]["accuracy"]
    assert figures["asked/head/accuracy"] == accuracy
    assert {"asked/head/answer_type/number", "asked/head/distinct"} <= set(figures)


def test_a_head_where_no_task_is_learned(with_head):
    with pytest.raises(InputError, match="^evaluations: asked is of a task's head, and this run learns no"):
        open_evaluations(with_head, torch.device("cpu"), trained_on=[])


def test_records_that_the_task_cannot_ask_about(with_head, tmp_path):
    manifest = tmp_path / "data" / "own-test.jsonl"
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([*lines, lines[0].split(', "id"')[0] + "}"]))
    with pytest.raises(InputError, match=f"^{manifest}: .*0.png: has no answers$"):
        open_evaluations(
            with_head, torch.device("cpu"), trained_on=[], task=QuestionAnswering(classes=ANSWERS)
        )


def test_settings_that_the_task_does_not_have(with_head, tmp_path):
    path = Path(with_head.evaluations[0])
    path.write_text(path.read_text().replace("head: {}", "head: {only_present: true}"))
    with pytest.raises(
        InputError, match="^evaluate.head.only_present: the task question_answering has no such"
    ):
        open_evaluations(
            with_head, torch.device("cpu"), trained_on=[], task=QuestionAnswering(classes=ANSWERS)
        )
