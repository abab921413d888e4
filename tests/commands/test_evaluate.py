import hashlib
import json
import shutil

from datasets import call, clips_source, refusal, training_arguments

from coca_video.checkpoint import load_checkpoint
from coca_video.commands.evaluate import main
from coca_video.commands.train import main as train_main


def arguments(checkpoint, root, *changes: str) -> list[str]:
    data = [f"evaluate.root={root}", "evaluate.num_frames=4", "device=cpu"]
    return [f"checkpoint={checkpoint}", "evaluate=emoji", *data, *changes]


def test_result_and_predictions(image_run, emoji_root, tmp_path, capsys):
    output = tmp_path / "new" / "folder"
    assert not call(main, *arguments(image_run, emoji_root, f"output={output}"))
    result = json.loads((output / "result.json").read_text())
    manifest = emoji_root / "clips" / "pack3.jsonl"
    assert result["protocol"]["manifest_sha256"] == hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert result["protocol"]["num_frames"] == 4
    assert result["checkpoint"]["sha256"] == load_checkpoint(image_run).hash
    assert result["actions"]["num_evaluated"] == 5 < result["actions"]["num_expected"] == 286
    lines = (output / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == [
        json.loads(line)["text"] for line in manifest.read_text().splitlines()
    ]
    assert sorted(path.name for path in output.iterdir()) == ["predictions.jsonl", "result.json"]
    printed = capsys.readouterr().out
    assert "emoji transfer, setting TRANSFER" in printed
    assert "actions: 5 of 286 evaluated" in printed and "retrieval: 4 of 222 evaluated" in printed
    top1 = result["actions"]["video"]["top1"]
    assert f"ACTIONS top1{'':12}{top1:10.1f}" in printed


def test_merged_patches(image_run, emoji_root, tmp_path):
    def predictions(num: int) -> list[dict]:
        output = tmp_path / str(num)
        call(main, *arguments(image_run, emoji_root, f"merged_per_block={num}", f"output={output}"))
        assert json.loads((output / "result.json").read_text())["protocol"]["merged_per_block"] == num
        return [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]

    merged, whole = predictions(1), predictions(0)
    assert len(merged) == len(whole) and merged[0]["top_actions"] != whole[0]["top_actions"]


def test_more_merged_patches_than_there_are(image_run, emoji_root, tmp_path, capsys):
    settings = ["merged_per_block=99", f"output={tmp_path / 'out'}"]
    found = refusal(main, *arguments(image_run, emoji_root, *settings), capsys=capsys)
    assert found == "merged_per_block must be from 0 to half of a picture's 4 patches, got 99"
    assert list(tmp_path.iterdir()) == []


def test_results_lie_with_the_run(image_run, emoji_root, tmp_path):
    run = shutil.copytree(image_run, tmp_path / "run")
    call(main, *arguments(run, emoji_root))
    result = json.loads((run / "result.json").read_text())
    assert result["checkpoint"]["path"] == str(run / "checkpoints" / "step-0000008")
    assert (run / "predictions.jsonl").exists()


def test_a_model_that_saw_the_test_is_refused(emoji_root, tmp_path, capsys):
    manifest = emoji_root / "clips" / "pack3.jsonl"
    cheat = training_arguments(tmp_path / "run", clips_source(manifest))
    assert call(train_main, *cheat, "loop.num_steps=1") == 0
    found = refusal(main, *arguments(tmp_path / "run", emoji_root), capsys=capsys)
    assert found.endswith(f"was trained on {manifest}, the clips to be evaluated")
    assert not (tmp_path / "run" / "result.json").exists()


def test_no_checkpoint_and_no_data(image_run, emoji_root, tmp_path, capsys):
    missing = tmp_path / "missing"
    assert refusal(main, *arguments(missing, emoji_root), capsys=capsys) == f"{missing}: no such checkpoint"
    found = refusal(main, *arguments(image_run, missing, f"output={tmp_path / 'out'}"), capsys=capsys)
    assert found.startswith(f"{missing / 'clips' / 'pack3.jsonl'}: cannot read this manifest")
    assert list(tmp_path.iterdir()) == []
