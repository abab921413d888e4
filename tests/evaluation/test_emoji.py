import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from coca_video.checkpoint import Checkpoint, load_checkpoint
from coca_video.data.manifest import read_manifest
from coca_video.errors import InputError
from coca_video.evaluation.emoji import EmojiConfig, evaluate_emoji
from coca_video.models.adaptors import Adaptor, TemporalConfig

CPU = torch.device("cpu")
VIEWS = ("video", "first_frame", "mean_of_frames")


@pytest.fixture(scope="module")
def checkpoint(image_run) -> Checkpoint:
    return load_checkpoint(image_run)


def evaluate(checkpoint: Checkpoint, root: Path, **changes) -> tuple[dict, list[dict]]:
    return evaluate_emoji(checkpoint, EmojiConfig(str(root), **({"num_frames": 4} | changes)), device=CPU)


@pytest.fixture(scope="module")
def evaluated(checkpoint, emoji_root) -> tuple[dict, list[dict]]:
    return evaluate(checkpoint, emoji_root)


def test_what_was_evaluated(evaluated):
    """Of six clips five show an action and four have no skin tone; expected is what the real pack holds."""
    result, predictions = evaluated
    for task, expected in (("actions", (5, 286)), ("retrieval", (4, 222)), ("captions", (4, 222))):
        assert (result[task]["num_evaluated"], result[task]["num_expected"]) == expected
    assert result["actions"]["num_classes"] == 3
    assert len(predictions) == 6


def test_the_protocol_is_written_down(evaluated, checkpoint, emoji_root, image_run):
    result, _ = evaluated
    manifest = emoji_root / "clips" / "pack3.jsonl"
    assert result["protocol"] == {
        "test_manifest": str(manifest),
        "manifest_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest(),
        "num_frames": 4,
        "sampling": "uniform",
        "image_size": 16,
        "resize": "center_crop",
        "reduced_decoding": False,
        "templates": ["person {}", "man {}", "woman {}"],
        "decoding": "beam search (8), the nearest to the clip's embedding",
        "dual_softmax": False,
        "torch": torch.__version__,
    }
    assert result["benchmark"] == "emoji transfer" and result["setting"] == "transfer"
    assert result["checkpoint"] == {
        "path": str(image_run / "checkpoints" / "step-0000008"),
        "sha256": checkpoint.hash,
        "trained_on": [str(emoji_root / "pictures")],
    }


def test_figures_follow_from_the_predictions(evaluated, emoji_root):
    result, predictions = evaluated
    of_actions = [p for p in predictions if p["action"]]
    right = [p["top_actions"][0][0] == p["action"] for p in of_actions]
    assert result["actions"]["video"]["top1"] == pytest.approx(100 * sum(right) / 5)
    assert result["actions"]["video"]["top5"] == 100  # of three classes
    for p in of_actions:
        assert sorted(name for name, _ in p["top_actions"]) == ["rowing boat", "running", "swimming"]
        assert sum(probability for _, probability in p["top_actions"]) == pytest.approx(1)
    ranks = [p["rank"] for p in predictions if p["rank"] is not None]
    assert len(ranks) == 4 and set(ranks) <= {1, 2, 3, 4}
    figures = result["retrieval"]["video"]["video_to_text"]
    assert figures["R@1"] == pytest.approx(100 * ranks.count(1) / 4)
    assert figures["mean_rank"] == pytest.approx(sum(ranks) / 4)
    for p in predictions:
        names = [name for name, _ in p["nearest_texts"]]
        assert (p["rank"] is None) == (names == [])
        assert p["rank"] is None or names.index(p["text"]) == p["rank"] - 1
        assert isinstance(p["caption"], str)
    records = read_manifest(emoji_root / "clips" / "pack3.jsonl")
    assert [(p["path"], p["text"], p["action"]) for p in predictions] == [
        (str(record.path), record.text, record.labels.get("action")) for record in records
    ]


def test_every_view_has_its_figures(evaluated):
    result, _ = evaluated
    for view in VIEWS:
        assert set(result["actions"][view]) == {"top1", "top5"}
        assert set(result["retrieval"][view]) == {"video_to_text", "text_to_video"}
    for view in VIEWS[:2]:
        assert set(result["captions"][view]) == {"cider_d", "exact_match", "distinct_ratio"}


def test_one_frame_makes_every_view_the_same(checkpoint, emoji_root):
    result, _ = evaluate(checkpoint, emoji_root, num_frames=1)
    for task, views in (("actions", VIEWS), ("retrieval", VIEWS), ("captions", VIEWS[:2])):
        assert all(result[task][view] == result[task]["video"] for view in views), task


def test_the_batch_size_changes_nothing(checkpoint, emoji_root, evaluated):
    result, predictions = evaluate(checkpoint, emoji_root, batch_size=2)
    assert [p["caption"] for p in predictions] == [p["caption"] for p in evaluated[1]]
    assert [p["rank"] for p in predictions] == [p["rank"] for p in evaluated[1]]
    assert result == evaluated[0]


def test_another_pack_is_its_own_measure(checkpoint, emoji_root):
    result, predictions = evaluate(checkpoint, emoji_root, pack=1)
    for task, number in (("actions", 1), ("retrieval", 4), ("captions", 4)):
        assert (result[task]["num_evaluated"], result[task]["num_expected"]) == (number, number)
    assert result["protocol"]["test_manifest"] == str(emoji_root / "clips" / "pack1.jsonl")


def test_a_clip_that_is_in_no_task_is_left_out(checkpoint, emoji_root, tmp_path):
    """A skin tone without an action."""
    shutil.copytree(emoji_root, tmp_path / "data")
    manifest = tmp_path / "data" / "clips" / "pack3.jsonl"
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([*lines, lines[-1].replace('"skintone": ""', '"skintone": "dark"')]))
    assert len(read_manifest(manifest)) == 7
    assert len(evaluate(checkpoint, tmp_path / "data")[1]) == 6


def test_a_model_of_clips_is_the_video_setting(mixed_run, emoji_root):
    assert evaluate(load_checkpoint(mixed_run), emoji_root)[0]["setting"] == "video"


@pytest.mark.parametrize("folder", ["pictures", "clips"])
def test_a_folder_s_name_does_not_make_the_setting(checkpoint, emoji_root, folder):
    seen = replace(checkpoint, trained_on=[f"/data/{folder}/pictures"])
    assert evaluate(seen, emoji_root)[0]["setting"] == "transfer"


def test_training_on_the_test_is_refused(checkpoint, emoji_root, monkeypatch):
    """However the same file is named."""
    manifest = emoji_root / "clips" / "pack3.jsonl"
    monkeypatch.chdir(emoji_root)
    for name in (str(manifest), "clips/pack3.jsonl", "./clips/../clips/pack3.jsonl"):
        with pytest.raises(InputError) as caught:
            evaluate(replace(checkpoint, trained_on=["elsewhere", name]), emoji_root)
        assert str(caught.value) == f"{checkpoint.path}: was trained on {manifest}, the clips to be evaluated"


def test_missing_data(checkpoint, tmp_path):
    with pytest.raises(InputError, match="pack3.jsonl: cannot read this manifest"):
        evaluate(checkpoint, tmp_path)


def test_a_missing_clip(checkpoint, emoji_root, tmp_path):
    shutil.copytree(emoji_root, tmp_path / "data")
    gone = tmp_path / "data" / "clips" / "pack3" / "3f2.mp4"
    gone.unlink()
    with pytest.raises(InputError) as caught:
        evaluate(checkpoint, tmp_path / "data")
    assert str(caught.value) == f"{tmp_path}/data/clips/pack3.jsonl: names {gone}, which does not exist"


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"num_frames": 0}, "num_frames must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"templates": []}, "templates must each hold {}"),
        ({"templates": ["a {}", "a person"]}, "templates must each hold {}"),
    ],
)
def test_settings_check_themselves(wrong, expected):
    with pytest.raises(ValueError, match=expected):
        EmojiConfig("data", **wrong)


def test_cached_tokens_change_no_figure(checkpoint, emoji_root, evaluated, tmp_path):
    """The second time the videos cannot be decoded any more."""
    root = Path(shutil.copytree(emoji_root, tmp_path / "data"))
    cache = str(tmp_path / "cache")
    first = evaluate(checkpoint, root, token_cache=cache)
    for path in (root / "clips" / "pack3").glob("*.mp4"):
        state = path.stat()
        path.write_bytes(bytes(state.st_size))
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    again = evaluate(checkpoint, root, token_cache=cache)
    with pytest.raises(InputError):
        evaluate(checkpoint, root)
    for result, predictions in (first, again):
        for task in ("actions", "retrieval", "captions"):
            assert result[task] == evaluated[0][task]
        paths = {"path": None}
        assert [p | paths for p in predictions] == [p | paths for p in evaluated[1]]


def test_frames_encoded_together_cannot_be_cached(image_run, emoji_root, tmp_path):
    joint = load_checkpoint(image_run, temporal=TemporalConfig(Adaptor.joint))
    expected = "evaluate.token_cache: the joint adaptor encodes a clip's frames together"
    with pytest.raises(InputError, match=expected):
        evaluate(joint, emoji_root, token_cache=str(tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


def test_reduced_decoding_is_written_down(checkpoint, emoji_root):
    result, predictions = evaluate(checkpoint, emoji_root, reduced_decoding=True)
    assert result["protocol"]["reduced_decoding"] is True and len(predictions) == 6
