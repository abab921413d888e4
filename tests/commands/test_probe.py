import json

import pytest
from datasets import call, refusal, training_arguments
from PIL import Image
from probing import write_coloured

from coca_video.checkpoint import load_checkpoint
from coca_video.commands.probe import main
from coca_video.commands.train import main as train_main
from coca_video.probes.heads import load_head

NAMES = [
    "confusion.png",
    "head.json",
    "head.safetensors",
    "per_class.csv",
    "predictions.jsonl",
    "result.json",
    "sweep.csv",
    "sweep.png",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_coloured(tmp_path_factory.mktemp("coloured"))


def arguments(checkpoint, root, output, *changes: str) -> list[str]:
    views = "{num_frames: 2}"
    return [
        f"checkpoint={checkpoint}",
        f"output={output}",
        "device=cpu",
        "probe=emoji",
        "probe.label=colour",
        f"probe.train.0.path={root / 'pictures'}",
        f"probe.val.path={root / 'val.jsonl'}",
        f"probe.test={{path: '{root / 'test.jsonl'}', views: {views}}}",
        f"probe.token_cache={output}-tokens",
        "probe.copies.number=1",
        "probe.sweep={lr: [1e-6, 0.02], weight_decay: [0.0], num_steps: 20, batch_size: 8, num_seeds: 2}",
        "probe.neighbours.k=[1, 3]",
        "probe.reading.num_workers=0",
        *changes,
    ]


@pytest.mark.parametrize("kind", ["attentional", "linear", "knn"])
def test_a_probe_beside_zero_shot(image_run, root, tmp_path, capsys, kind):
    output = tmp_path / "new" / "folder"
    assert call(main, *arguments(image_run, root, output, f"probe.kind={kind}")) == 0
    result = json.loads((output / "result.json").read_text())
    assert sorted(path.name for path in output.iterdir()) == sorted([*NAMES, "zero-shot"])
    assert result["format"] == "probe-1" and result["model"]["sha256"] == load_checkpoint(image_run).hash
    assert (result["num_classes"], result["num_candidates"], result["num_evaluated"]) == (3, 2, 6)
    assert result["test"]["top1"] == 100.0 and result["val"]["top1"] == 100.0
    assert result["zero_shot"]["num_evaluated"] == 6 and result["zero_shot"]["num_classes"] == 2
    table = (output / "sweep.csv").read_text().splitlines()
    assert table[0].startswith("k,temperature,seed" if kind == "knn" else "lr,weight_decay,seed,train_loss")
    assert len(table) == 1 + {"attentional": 4, "linear": 2, "knn": 2}[kind]
    predictions = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    assert [each["top_classes"][0][0] for each in predictions] == ["green"] * 3 + ["red"] * 3
    assert load_head(output).about["classes"] == ["blue", "green", "red"]
    assert Image.open(output / "sweep.png").size > (100, 100)
    printed = capsys.readouterr().out
    assert f"{kind} probe of" in printed and "among 2 of 3 classes" in printed
    row = next(line.split() for line in printed.splitlines() if line.split()[:1] == ["top1"])
    expected = [result["val"]["top1"], result["test"]["top1"], result["zero_shot"]["figures"]["top1"]]
    assert [float(value) for value in row[1:]] == [pytest.approx(value, abs=0.01) for value in expected]


def test_results_lie_with_the_run_and_none_takes_another_s_place(image_run, root, tmp_path):
    """A linear probe leaves what the attentional one has found."""
    settings = [x for x in arguments(image_run, root, tmp_path / "out") if not x.startswith("output=")]
    changes = [f"checkpoint={tmp_path / 'run'}", "probe.templates=[]", "probe.kind=knn"]
    (tmp_path / "run").symlink_to(image_run)
    moved = [*settings[1:], *changes]
    assert call(main, *moved) == 0
    folder = image_run / "probe" / "test-knn"
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    assert json.loads((folder / "result.json").read_text())["zero_shot"] is None


def test_a_broken_video_makes_the_result_partial(image_run, tmp_path, capsys):
    root = write_coloured(tmp_path)
    broken = root / "test" / "red-1.mp4"
    broken.write_bytes(broken.read_bytes()[:200])
    changes = ["probe.kind=knn", "probe.templates=[]"]
    assert call(main, *arguments(image_run, root, tmp_path / "out", *changes)) == 3
    printed = capsys.readouterr().out
    assert f"could not be read: {broken}: " in printed
    assert "incomplete: 1 examples of test could not be read" in printed


def test_a_model_that_saw_the_test_is_refused(root, emoji_root, tmp_path, capsys):
    source = f"{{kind: clips, path: '{root / 'test.jsonl'}', batch_size: 2, num_frames: 3}}"
    assert call(train_main, *training_arguments(tmp_path / "run", source), "loop.num_steps=1") == 0
    found = refusal(main, *arguments(tmp_path / "run", root, tmp_path / "out"), capsys=capsys)
    assert found.endswith(f"was trained on {root / 'test.jsonl'}, the clips to be evaluated")
    assert not (tmp_path / "out").exists()


def test_a_model_that_saw_what_settings_are_chosen_by(root, tmp_path, capsys):
    source = f"{{kind: clips, path: '{root / 'val.jsonl'}', batch_size: 2, num_frames: 1}}"
    assert call(train_main, *training_arguments(tmp_path / "run", source), "loop.num_steps=1") == 0
    changes = ["probe.kind=knn", "probe.templates=[]"]
    assert call(main, *arguments(tmp_path / "run", root, tmp_path / "out", *changes)) == 0
    assert "note: the encoder was trained on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            "probe.kind=lineer",
            "probe.kind: Invalid value 'lineer', expected one of [attentional, linear, knn]",
        ),
        ("probe.sweep.lr=[]", "lr must be different numbers, none negative, got []"),
        ("probe.label=name", "has the label 'name'; there are colour, nth"),
        ("probe=emojy", "probe=emojy: there is no such probe; the choices are emoji, "),
        ("checkpoint=nothing", "nothing: no such checkpoint"),
    ],
)
def test_what_is_refused_leaves_nothing(image_run, root, tmp_path, capsys, change, expected):
    found = refusal(main, *arguments(image_run, root, tmp_path / "out", change), capsys=capsys)
    assert expected in found
    assert not (tmp_path / "out").exists()
