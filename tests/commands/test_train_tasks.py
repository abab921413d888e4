import json
import shutil
from pathlib import Path

import pytest
import torch
from datasets import call, refusal
from runs import assert_same_runs
from task_sets import TASKS, TaskSets, config_of, make_task_sets

from coca_video.checkpoint import load_checkpoint, saved_checkpoints
from coca_video.commands.plan import main as plan
from coca_video.commands.train import main
from coca_video.run_log import read_log
from coca_video.tasks.catalogue import task_of
from coca_video.training.log import MEASURED

LOSSES = {
    "classification": {"task", "accuracy"},
    "question_answering": {"task", "accuracy", "answer"},
    "entailment": {"task", "accuracy"},
    "picture_pairs": {"task", "accuracy"},
}
CLASSES = {
    "classification": ["blue", "gray", "green", "red"],
    "question_answering": ["blue", "gray", "green", "red", "0"],  # by how often, then by name; none is 0
    "entailment": ["contradiction", "entailment", "neutral"],
    "picture_pairs": ["False", "True"],
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> TaskSets:
    """To be read only."""
    return make_task_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def plain_run(sets, tmp_path_factory) -> Path:
    """Two steps of captions: a start."""
    output = tmp_path_factory.mktemp("runs") / "plain"
    assert call(main, *sets.arguments(output, None, "loop.num_steps=2")) == 0
    return output


@pytest.fixture(scope="module")
def runs(sets, plain_run, tmp_path_factory) -> dict[str, Path]:
    """A finished run of each task from that start, to be read only."""
    folder = tmp_path_factory.mktemp("taught")
    for task in TASKS:
        assert call(main, *sets.arguments(folder / task, task, f"init={plain_run}")) == 0
    return {task: folder / task for task in TASKS}


@pytest.mark.parametrize("task", TASKS)
def test_a_run_teaches_its_task(runs, sets, task):
    found = load_checkpoint(runs[task])
    assert found.task["name"] == task and found.task["classes"] == CLASSES[task]
    assert found.trained_on == [str(sets.manifest("captions")), str(sets.manifest(task))]
    lines = read_log(runs[task])
    assert len(lines) == 4 and all(LOSSES[task] | {"loss"} <= line.keys() for line in lines)
    assert not {"caption", "contrastive"} & lines[0].keys()
    assert lines[0]["loss"] != lines[-1]["loss"] > 0
    assert task_of(found).classes == CLASSES[task] and found.model.task_head is not None
    settings = json.loads((runs[task] / "settings.json").read_text())
    assert settings["task"]["name"] == task and settings["task"]["classes"] == []


@pytest.mark.parametrize("task", TASKS)
def test_the_command_continues_what_it_began(runs, sets, plain_run, tmp_path, task):
    output = Path(shutil.copytree(runs[task], tmp_path / "half"))
    shutil.rmtree(saved_checkpoints(output)[-1])
    assert call(main, *sets.arguments(output, task, f"init={plain_run}")) == 0
    assert_same_runs(output, runs[task])


def test_micro_batches_learn_the_same(runs, sets, plain_run, tmp_path):
    """Of a frozen model: each micro-batch would have dropout of its own."""
    changes = [f"init={plain_run}", "loop.tuning.regime=task_head", "loop.num_steps=2"]
    found = {}
    for size in (0, 3):
        output = tmp_path / str(size)
        size_of = f"loop.compute.micro_batch_size={size}"
        assert call(main, *sets.arguments(output, "picture_pairs", *changes, size_of)) == 0
        found[size] = [{k: v for k, v in line.items() if k not in MEASURED} for line in read_log(output)]
    for ours, theirs in zip(found[3], found[0], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_a_head_alone(sets, plain_run, tmp_path, capsys):
    output = tmp_path / "head"
    changes = [f"init={plain_run}", "loop.tuning.regime=task_head"]
    assert call(main, *sets.arguments(output, "classification", *changes)) == 0
    lines = capsys.readouterr().err.splitlines()
    assert "train task_head: " in lines[1] and lines[2] == "a new head for the task classification"
    assert not any(line.startswith("new weights:") for line in lines)
    before, after = load_checkpoint(plain_run), load_checkpoint(output)
    for name, weight in before.model.state_dict().items():
        assert torch.equal(after.model.state_dict()[name], weight), name
    head = sum(weight.numel() for weight in after.task_weights.values())
    share = 1 - head / (head + sum(p.numel() for p in before.model.parameters()))
    assert f", {share:.2%} of them from {before.path}, " in lines[0]


def test_from_scratch_a_tokenizer_learns_from_the_questions(sets, tmp_path):
    changes = ["loop.num_steps=1", "model.text.vocab_size=300"]
    assert call(main, *sets.arguments(tmp_path / "run", "question_answering", *changes)) == 0
    tokenizer = load_checkpoint(tmp_path / "run").tokenizer
    assert len(tokenizer.encode("which colour is it ? red", max_length=99)) < 12


@pytest.mark.parametrize(
    ("task", "changes", "said"),
    [
        ("entailment", [], "the start's head for the task entailment"),
        (
            "classification",
            ["task.label=colour"],
            "a new head for the task classification; that of the start, of entailment, is left out",
        ),
        (
            "entailment",
            ["task.classes=[neutral, entailment, contradiction]"],
            "a new head for the task entailment; that of the start, of entailment, is left out",
        ),
    ],
)
def test_from_a_checkpoint_with_a_task(runs, sets, tmp_path, capsys, task, changes, said):
    start = runs["entailment"]
    arguments = sets.arguments(tmp_path / "run", task, f"init={start}", "loop.num_steps=1", *changes)
    assert call(main, *arguments, "loop.optimizer.lr=1e-9") == 0
    assert said in capsys.readouterr().err.splitlines()
    before, after = load_checkpoint(start), load_checkpoint(tmp_path / "run")
    name = "classifier.pooler.queries" if task == "classification" else "pooler.queries"
    ours, theirs = after.task_weights[name], before.task_weights["pooler.queries"]
    is_same = ours.shape == theirs.shape and torch.allclose(ours, theirs, atol=1e-6)
    assert is_same is said.startswith("the start's")


def test_without_a_task_the_head_of_the_start_is_left_out(runs, sets, tmp_path):
    arguments = sets.arguments(tmp_path / "run", None, f"init={runs['entailment']}", "loop.num_steps=1")
    assert call(main, *arguments) == 0
    found = load_checkpoint(tmp_path / "run")
    assert found.task is None and not found.task_weights and "task" not in config_of(found.path)


@pytest.mark.parametrize("task", ["picture_pairs", "classification"])
def test_cached_tokens_teach_the_same(sets, plain_run, tmp_path, task):
    """To roundings: a cache encodes other batches."""
    lines = {}
    for name, changes in {"frames": [], "tokens": [f"data.token_cache={tmp_path / 'cache'}"]}.items():
        output = tmp_path / name
        lit = [f"init={plain_run}", "loop.tuning.regime=lit", *changes]
        assert call(main, *sets.arguments(output, task, *lit)) == 0
        lines[name] = [line["loss"] for line in read_log(output)]
    assert lines["tokens"] == pytest.approx(lines["frames"], abs=1e-5)


def test_a_blind_run_depends_on_no_picture(sets, plain_run, tmp_path):
    losses = []
    for name in ("one", "other"):
        root = Path(shutil.copytree(sets.root, tmp_path / f"{name} sets"))
        if name == "other":
            shutil.copy(root / "gray.png", root / "red.png")
        arguments = TaskSets(root).arguments(
            tmp_path / name, "entailment", f"init={plain_run}", "task.blind=true"
        )
        assert call(main, *arguments) == 0
        losses.append([line["loss"] for line in read_log(tmp_path / name)])
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("task", "changes", "expected"),
    [
        (
            "classification",
            ["task.label=shape"],
            "{manifest}: none of the samples has the label 'shape'; they have colour",
        ),
        (
            "classification",
            ["data.sources.0.subset='colour=red'"],
            "{manifest}: the task classification needs two classes at least, found red",
        ),
        (
            "classification",
            ["data.sources.0.subset=shape"],
            "{manifest}: none of its 8 samples is in the subset 'shape'",
        ),
        (
            "classification",
            ["task.classes=[red]"],
            "{manifest}: the task classification needs two classes at least, found red",
        ),
        ("classification", ["task.classes=[red, red]"], "classes must differ from each other"),
        (
            "classification",
            ["task.classes=[yellow, pink]"],
            "{manifest}: the task classification can ask nothing of these samples: "
            "{root}/gray.png: 'gray' is none of the 2 classes",
        ),
        (
            "entailment",
            ["task.blind=true", "data.token_cache=cache"],
            "data.token_cache: would have no effect: with task.blind=true no picture is seen",
        ),
        (
            "entailment",
            ["loop.loss.caption_weight=1"],
            "loop.loss: would have no effect beside task=entailment; see task.* for its own",
        ),
        (
            "classification",
            ["data.sources.0.prompts=photo"],
            "data.sources[0].prompts: would have no effect beside task=classification",
        ),
        (
            "picture_pairs",
            ["data.sources.0.num_frames=2"],
            "data.sources[0].num_frames: must be 1 with task=picture_pairs, got 2: a pair is of pictures",
        ),
        (
            "picture_pairs",
            ["model.temporal={adaptor: joint, num_positions: 2}"],
            "model.temporal.adaptor=joint would encode both pictures of a pair together",
        ),
        (
            "question_answering",
            ["task.prompt=what"],
            "prompt must hold one {{}}, where the question stands, got 'what'",
        ),
        (
            "question_answering",
            ["task.promt=what"],
            "task.promt: there is no such key; did you mean prompt?",
        ),
        (
            "entailment",
            ["task=entailmnt"],
            "task=entailmnt: there is no such task; the choices are "
            "classification, entailment, picture_pairs, question_answering",
        ),
        ("entailment", ["task.label_smoothing=2"], "label_smoothing must be in [0, 1), got 2.0"),
    ],
)
def test_what_cannot_be_taught(sets, tmp_path, capsys, task, changes, expected):
    arguments = sets.arguments(tmp_path / "run", task, *changes)
    found = refusal(main, *arguments, capsys=capsys)
    assert found == expected.format(manifest=sets.manifest(task), root=sets.root)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("task", "manifest", "expected"),
    [
        (
            "picture_pairs",
            "entailment",
            "the task picture_pairs is about pairs, found a single file, without second_path",
        ),
        ("entailment", "picture_pairs", "the task entailment is about single files, found a pair"),
        (
            "question_answering",
            "captions",
            "the task question_answering needs two classes at least, found none",
        ),
    ],
)
def test_another_task_s_data(sets, tmp_path, capsys, task, manifest, expected):
    """Pairs where one is read, and the other way round."""
    labels = {"picture_pairs": ["task.label=relation"], "entailment": ["task.label=answer"]}.get(task, [])
    arguments = sets.arguments(tmp_path / "run", task, *labels, manifest=manifest)
    found = refusal(main, *arguments, capsys=capsys)
    assert found.startswith(f"{sets.manifest(manifest)}: ") and found.endswith(expected)


def test_a_second_picture_that_is_not_there(sets, tmp_path, capsys):
    root = Path(shutil.copytree(sets.root, tmp_path / "sets"))
    (root / "green.png").unlink()
    arguments = TaskSets(root).arguments(tmp_path / "run", "picture_pairs")
    found = refusal(main, *arguments, capsys=capsys)
    assert found == f"{root}/picture_pairs.jsonl: names {root}/green.png, which does not exist"


def test_settings_of_a_task_without_one(sets, tmp_path, capsys):
    arguments = sets.arguments(tmp_path / "run", None)
    found = refusal(main, *arguments, "task.prompt='{} ?'", capsys=capsys)
    choices = "classification, entailment, picture_pairs, question_answering"
    assert found == f"task.prompt: there is no task that could have it; the choices are {choices}"
    group = "loop.optimizer.groups.task_head.lr=0.1"
    found = refusal(main, *arguments, group, capsys=capsys)
    assert found.startswith("loop.optimizer.groups.task_head: would have no effect")
    found = refusal(main, *arguments, f"init={tmp_path}", "loop.tuning.regime=task_head", capsys=capsys)
    assert found == "loop.tuning.regime=task_head: there is no such head; give task=NAME"


@pytest.mark.parametrize("change", ["task=entailment", "task.label_smoothing=0.2", "task.blind=true"])
def test_a_run_goes_on_with_its_own_task_only(runs, sets, capsys, change):
    task = "classification" if change.startswith("task=") else "entailment"
    changes = [change, "task.label=colour"] if change.startswith("task=") else [change]
    arguments = sets.arguments(runs[task], task, *changes)
    found = refusal(main, *arguments, capsys=capsys)
    assert found.startswith(f"{runs[task]}: holds a run with ")


def test_a_run_goes_on_with_its_own_classes_only(runs, sets, plain_run, tmp_path, capsys):
    """The data may have changed, and have as many samples as before."""
    root = Path(shutil.copytree(sets.root, tmp_path / "sets"))
    output = tmp_path / "run"
    arguments = TaskSets(root).arguments(output, "classification", f"init={plain_run}")
    assert call(main, *arguments, "loop.num_steps=2") == 0
    settings = (output / "settings.json").read_text().replace('"num_steps": 2', '"num_steps": 4')
    (output / "settings.json").write_text(settings)
    manifest = root / "classification.jsonl"
    manifest.write_text(manifest.read_text().replace('"colour": "red"', '"colour": "pink"'))
    found = refusal(main, *arguments, capsys=capsys)
    checkpoint = saved_checkpoints(output)[-1]
    reason = "the classes in the data are not those that it began with; set output= to another folder"
    assert found == f"{checkpoint}: {reason}"


def test_tasks_are_not_planned_for(sets, tmp_path, capsys):
    found = refusal(plan, *sets.arguments(tmp_path / "run", "entailment"), "devices=1", capsys=capsys)
    assert found == "task=entailment: only CoCa's own losses are planned for"
