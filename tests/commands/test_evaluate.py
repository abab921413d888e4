import hashlib
import json
import shutil

import pytest
from datasets import call, clips_source, refusal, training_arguments
from heads import ANSWERS, pair_set, question_set, save_taught

from coca_video.checkpoint import load_checkpoint
from coca_video.commands.evaluate import main
from coca_video.commands.report import main as report_main
from coca_video.commands.train import main as train_main
from coca_video.tasks.picture_pairs import PicturePairs
from coca_video.tasks.question_answering import QuestionAnswering


def arguments(checkpoint, root, *changes: str) -> list[str]:
    data = [f"evaluate.manifest={root}/clips/pack3.jsonl", "evaluate.views.num_frames=4", "device=cpu"]
    return [f"checkpoint={checkpoint}", "evaluate=emoji", "evaluate.loading.num_workers=0", *data, *changes]


def test_result_and_predictions(image_run, emoji_root, tmp_path, capsys):
    output = tmp_path / "new" / "folder"
    assert call(main, *arguments(image_run, emoji_root, f"output={output}")) == 3  # 5 clips of 286
    result = json.loads((output / "result.json").read_text())
    manifest = emoji_root / "clips" / "pack3.jsonl"
    assert result["manifest_sha256"] == hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert result["protocol"]["num_frames"] == 4
    assert result["model"]["sha256"] == load_checkpoint(image_run).hash
    actions = result["tasks"]["classification"]
    assert actions["num_evaluated"] == 5 < actions["num_expected"] == 286
    lines = (output / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == [
        json.loads(line)["text"] for line in manifest.read_text().splitlines()
    ]
    names = ["captions.json", "confusion.png", "per_class.csv", "predictions.jsonl", "result.json"]
    assert sorted(path.name for path in output.iterdir()) == names
    printed = capsys.readouterr().out
    assert f"emoji transfer pack3, {image_run}" in printed
    assert "classification: 5 of 286 evaluated" in printed and "retrieval: 4 of 222 evaluated" in printed
    assert "not official: retrieval: 4 examples evaluated, the official number is 222" in printed
    row = next(line.split() for line in printed.splitlines() if line.split()[:1] == ["top1"])
    assert [float(value) for value in row[1:]] == [
        pytest.approx(actions["figures"][reading]["top1"], abs=0.01)
        for reading in ("video", "first_frame", "mean_of_frames")
    ]


def test_merged_patches(image_run, emoji_root, tmp_path):
    def predictions(num: int) -> list[dict]:
        output = tmp_path / str(num)
        call(main, *arguments(image_run, emoji_root, f"merged_per_block={num}", f"output={output}"))
        assert json.loads((output / "result.json").read_text())["protocol"]["merged_per_block"] == num
        return [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]

    merged, whole = predictions(1), predictions(0)
    assert len(merged) == len(whole) and merged[0]["top_classes"] != whole[0]["top_classes"]


def test_more_merged_patches_than_there_are(image_run, emoji_root, tmp_path, capsys):
    settings = ["merged_per_block=99", f"output={tmp_path / 'out'}"]
    found = refusal(main, *arguments(image_run, emoji_root, *settings), capsys=capsys)
    assert found == "merged_per_block must be from 0 to half of a picture's 4 patches, got 99"
    assert list(tmp_path.iterdir()) == []


def test_results_lie_with_the_run(image_run, emoji_root, tmp_path):
    run = shutil.copytree(image_run, tmp_path / "run")
    call(main, *arguments(run, emoji_root))
    folder = run / "evaluate" / "pack3"
    result = json.loads((folder / "result.json").read_text())
    assert result["model"]["checkpoint"] == str(run / "checkpoints" / "step-0000008")
    assert (folder / "predictions.jsonl").exists()


def test_a_model_that_saw_the_test_is_refused(emoji_root, tmp_path, capsys):
    manifest = emoji_root / "clips" / "pack3.jsonl"
    cheat = training_arguments(tmp_path / "run", clips_source(manifest))
    assert call(train_main, *cheat, "loop.num_steps=1") == 0
    found = refusal(main, *arguments(tmp_path / "run", emoji_root), capsys=capsys)
    assert found.endswith(f"was trained on {manifest}, the clips to be evaluated")
    assert not (tmp_path / "run" / "evaluate").exists()


def test_no_checkpoint_and_no_data(image_run, emoji_root, tmp_path, capsys):
    missing = tmp_path / "missing"
    assert refusal(main, *arguments(missing, emoji_root), capsys=capsys) == f"{missing}: no such checkpoint"
    found = refusal(main, *arguments(image_run, missing, f"output={tmp_path / 'out'}"), capsys=capsys)
    assert found.startswith(f"{missing / 'clips' / 'pack3.jsonl'}: cannot read this manifest")
    assert list(tmp_path.iterdir()) == []


def test_a_set_of_one_s_own_that_is_whole(image_run, emoji_root, tmp_path, capsys):
    """Nobody says how many examples it should have: not official, and not partial either."""
    pack = f"evaluate.manifest={emoji_root}/clips/pack1.jsonl"
    assert call(main, *arguments(image_run, emoji_root, pack, f"output={tmp_path / 'out'}")) == 0
    assert "not official: no official number of examples is known" in capsys.readouterr().out


def test_a_broken_video_makes_the_set_partial(image_run, emoji_root, tmp_path, capsys):
    root = shutil.copytree(emoji_root, tmp_path / "data")
    broken = root / "clips" / "pack1" / "1f2.mp4"
    broken.write_bytes(broken.read_bytes()[:200])
    pack = f"evaluate.manifest={root}/clips/pack1.jsonl"
    assert call(main, *arguments(image_run, root, pack, f"output={tmp_path / 'out'}")) == 3
    assert f"could not be read: {broken}: cut short" in capsys.readouterr().out


def test_a_name_that_is_no_text(image_run, emoji_root, tmp_path, capsys):
    root = shutil.copytree(emoji_root, tmp_path / "data")
    manifest = root / "clips" / "pack1.jsonl"
    manifest.write_text(manifest.read_text().replace("pack1/1f2.mp4", "pack1/\\udcff.mp4"))
    settings = [f"evaluate.manifest={manifest}", f"output={tmp_path / 'out'}"]
    assert call(main, *arguments(image_run, root, *settings)) == 3
    assert "\\udcff.mp4: no such file" in capsys.readouterr().out


def test_unknown_templates(image_run, emoji_root, tmp_path, capsys):
    settings = ["evaluate.classification.templates=[clip_kinetcs]", f"output={tmp_path / 'out'}"]
    found = refusal(main, *arguments(image_run, emoji_root, *settings), capsys=capsys)
    assert "clip_kinetcs" in found and "clip_kinetics" in found
    assert list(tmp_path.iterdir()) == []


# Learned tasks


def head_arguments(checkpoint, manifest, *changes: str) -> list[str]:
    data = [f"evaluate.manifest={manifest}", "evaluate.loading.num_workers=0", "device=cpu"]
    return [f"checkpoint={checkpoint}", "evaluate=vqa_v2", *data, *changes]


def test_a_head_s_result_lies_beside_the_zero_shot_one(tmp_path, capsys):
    checkpoint = save_taught(tmp_path / "run", QuestionAnswering(classes=ANSWERS))
    manifest = question_set(tmp_path / "data")
    assert call(main, *head_arguments(checkpoint, manifest)) == 0
    folder = checkpoint / "evaluate" / "own-test-head"
    names = ["answers.json", "predictions.jsonl", "result.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    figures = json.loads((folder / "result.json").read_text())["tasks"]["head"]["figures"]["video"]
    printed = capsys.readouterr().out
    assert "head (question answering): 6 evaluated" in printed
    rows = {" ".join(line.split()[:-1]): line.split()[-1] for line in printed.splitlines() if line.strip()}
    assert float(rows["accuracy"]) == pytest.approx(figures["accuracy"], abs=0.01)
    assert float(rows["answer type other"]) == pytest.approx(figures["answer_type"]["other"], abs=0.01)
    page = tmp_path / "page.md"
    call(report_main, folder, "--output", page)
    assert "### Learned task" in page.read_text() and "answers.json" in page.read_text()
    assert "own-test: learned task" in capsys.readouterr().out


def test_answers_are_written_if_that_is_wanted(tmp_path):
    checkpoint = save_taught(tmp_path / "run", QuestionAnswering(classes=ANSWERS))
    manifest, output = question_set(tmp_path / "data"), tmp_path / "out"
    changes = ["evaluate.head.open_ended=true", f"output={output}"]
    assert call(main, *head_arguments(checkpoint, manifest, *changes)) == 0
    result = json.loads((output / "result.json").read_text())
    assert result["tasks"]["head"]["answers"] == "written"


class OwnPairs(PicturePairs):
    name = "own_pairs"


def test_tasks_of_one_s_own(tmp_path, capsys):
    checkpoint = save_taught(tmp_path / "run", OwnPairs(classes=["False", "True"]))
    arguments = head_arguments(checkpoint, pair_set(tmp_path / "data"), f"output={tmp_path / 'out'}")
    found = refusal(main, *arguments, capsys=capsys)
    assert found.startswith(f"{checkpoint}: its task is 'own_pairs'; known are classification, question_ans")
    assert call(lambda: main(own=[OwnPairs]), *arguments) == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["tasks"]["head"]["task"] == "own_pairs"


def test_a_head_that_is_not_there(image_run, tmp_path, capsys):
    manifest = question_set(tmp_path / "data")
    found = refusal(main, *head_arguments(image_run, manifest), capsys=capsys)
    assert found.startswith(f"{image_run}/checkpoints/step-0000008: has learned no task")
    assert not (image_run / "evaluate" / "own-test-head").exists()
