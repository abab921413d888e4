import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from checkpointing import files_of_at_most
from datasets import (
    call,
    clips_source,
    mixed_arguments,
    pictures_source,
    refusal,
    training_arguments,
)

from coca_video.checkpoint import load_checkpoint, saved_checkpoints
from coca_video.commands.train import main
from coca_video.data.transforms import Resize
from coca_video.run_log import read_log
from coca_video.training.run_lock import locked

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copied_root(emoji_root, tmp_path) -> Path:
    """The data, to be damaged."""
    return Path(shutil.copytree(emoji_root, tmp_path / "data"))


def test_a_run(mixed_run, emoji_root):
    found = load_checkpoint(mixed_run)
    assert found.trained_on == [str(emoji_root / "clips" / "pack1.jsonl"), str(emoji_root / "pictures")]
    assert found.model.config.text.vocab_size == found.tokenizer.vocab_size <= 300
    text = "person juggling"
    assert found.tokenizer.decode(found.tokenizer.encode(text, max_length=16)) == text
    settings = json.loads((mixed_run / "settings.json").read_text())
    assert settings["loop"]["num_steps"] == 8 and settings["data"]["sources"][0]["kind"] == "clips"


def test_the_command_continues_what_it_began(mixed_run, emoji_root, tmp_path, capsys):
    """A run of which only the first half is there becomes the whole one."""
    output = Path(shutil.copytree(mixed_run, tmp_path / "half"))
    shutil.rmtree(saved_checkpoints(output)[-1])
    assert call(main, *mixed_arguments(emoji_root, output)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{output}: finished after step 8"
    assert load_checkpoint(output).hash == load_checkpoint(mixed_run).hash
    assert [line["loss"] for line in read_log(output)] == [line["loss"] for line in read_log(mixed_run)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("loop.optimizer.lr=0.02", "loop.optimizer.lr = 0.01, not 0.02"),
        ("loop.optimizer.schedule=linear", "loop.optimizer.schedule = cosine, not linear"),
        ("loop.num_steps=9", "loop.num_steps = 8, not 9"),
        ("model.embed_dim=16", "model.embed_dim = 12, not 16"),
        ("loop.tuning.regime=lit", "loop.tuning.regime = full, not lit"),
        ("loop.optimizer.groups.heads.lr=0.1", "loop.optimizer.groups.heads.lr = None, not 0.1"),
        ("init=runs/other", "init = None, not runs/other"),
    ],
)
def test_a_run_goes_on_with_its_own_settings_only(image_run, emoji_root, capsys, change, expected):
    arguments = training_arguments(image_run, pictures_source(emoji_root))
    found = refusal(main, *arguments, change, capsys=capsys)
    assert found == f"{image_run}: holds a run with {expected}; set output= to another folder"


def test_what_changes_no_result_may_change(image_run, emoji_root, tmp_path):
    output = Path(shutil.copytree(image_run, tmp_path / "copy"))
    shutil.rmtree(saved_checkpoints(output)[-1])
    free = ["data.num_workers=1", "loop.save_every=1", "loop.keep_last=1", "device=auto"]
    assert call(main, *training_arguments(output, pictures_source(emoji_root)), *free) == 0
    assert [path.name for path in saved_checkpoints(output)] == ["step-0000008"]


def test_micro_batches_with_negatives_of_their_own_stay_as_they_are(image_run, emoji_root, tmp_path, capsys):
    output = Path(shutil.copytree(image_run, tmp_path / "copy"))
    settings = json.loads((output / "settings.json").read_text())
    settings["loop"]["compute"]["accumulation"] = "separate"
    (output / "settings.json").write_text(json.dumps(settings))
    change = "loop.compute={accumulation: separate, micro_batch_size: 2}"
    found = refusal(main, *training_arguments(output, pictures_source(emoji_root)), change, capsys=capsys)
    assert found.startswith(f"{output}: holds a run with loop.compute.micro_batch_size = 0, not 2;")


def test_video_from_an_image_checkpoint(image_run, emoji_root, tmp_path):
    """Weights and tokenizer are the checkpoint's; the time positions are new, and learn."""
    output = tmp_path / "video"
    changes = ["model.temporal.num_positions=4", "loop.num_steps=2", "loop.optimizer.lr=1e-6"]
    assert call(main, *mixed_arguments(emoji_root, output), f"init={image_run}", *changes) == 0
    before, after = load_checkpoint(image_run), load_checkpoint(output)
    assert after.tokenizer.to_json() == before.tokenizer.to_json()
    sources = [str(emoji_root / "clips" / "pack1.jsonl"), str(emoji_root / "pictures")]
    assert after.trained_on == [*before.trained_on, sources[0]]  # the pictures once
    weights = after.model.state_dict()
    moved = weights.pop("temporal.positions.table")
    assert moved.shape == (4, 16) and 0 < moved.abs().max() < 1e-5
    for name, value in before.model.state_dict().items():
        torch.testing.assert_close(weights[name], value, atol=1e-5, rtol=0)


def test_a_tokenizer_of_one_s_own(image_run, emoji_root, tmp_path, capsys):
    path = tmp_path / "tokenizer.json"
    path.write_text(load_checkpoint(image_run).tokenizer.to_json(), encoding="utf-8")
    arguments = [*training_arguments(tmp_path / "run", pictures_source(emoji_root)), f"tokenizer={path}"]
    size = load_checkpoint(image_run).tokenizer.vocab_size
    found = refusal(main, *arguments, f"model.text.vocab_size={size - 1}", capsys=capsys)
    sizes = f"the tokenizer has {size} ids, the model has {size - 1}"
    assert found == f"{path}: {sizes} (model.text.vocab_size)"
    assert call(main, *arguments, "loop.num_steps=1") == 0
    assert load_checkpoint(tmp_path / "run").tokenizer.to_json() == path.read_text(encoding="utf-8")


def test_a_regime_on_an_image_checkpoint(image_run, emoji_root, tmp_path, capsys):
    """Only the factorised adaptor's own weights move, and they start from the seed."""
    adaptor = ["model.temporal={adaptor: factorised, num_positions: 4, num_layers: 2}"]
    changes = [f"init={image_run}", *adaptor, "loop.tuning.regime=temporal", "loop.num_steps=2"]
    for output in (tmp_path / "one", tmp_path / "two"):
        capsys.readouterr()
        assert call(main, *mixed_arguments(emoji_root, output), *changes) == 0
        before, after = load_checkpoint(image_run), load_checkpoint(output)
        weights = after.model.state_dict()
        for name, value in before.model.state_dict().items():
            assert torch.equal(weights.pop(name), value), name
        assert all(name.startswith("temporal.") for name in weights)
    assert load_checkpoint(tmp_path / "one").hash == load_checkpoint(tmp_path / "two").hash
    num_new = sum(value.numel() for value in weights.values())
    share = 1 - num_new / sum(p.numel() for p in after.model.parameters())
    said = capsys.readouterr().err.splitlines()
    assert f", {share:.2%} of them from {saved_checkpoints(image_run)[-1]}, " in said[0]
    frozen = "image_encoder, poolers, unimodal, multimodal, heads"
    assert said[1].startswith("steps 0 to 1 train temporal: 0.0M of 0.0M parameters")
    assert said[1].endswith(f"; frozen: {frozen}")
    blocks = sum(name.startswith("temporal.blocks.") for name in weights)
    assert said[2] == f"new weights: temporal.positions.table (4, 16), temporal.blocks ({blocks} tensors)"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            ["loop.tuning.regime=temporal"],
            "loop.tuning.regime=temporal would train nothing: "
            "the losses reach no weights of temporal with model.temporal.adaptor=attentional",
        ),
        (
            ["loop.tuning.regime=poolers_then_full", "loop.num_steps=1"],
            "loop.num_steps: poolers_then_full needs a step for each phase, "
            "got 1 with loop.tuning.first_share 0.5",
        ),
        (
            ["loop.tuning.regime=frozen"],
            "loop.tuning.regime: Invalid value 'frozen', expected one of "
            "[full, poolers, poolers_then_full, lit, temporal, heads, task_head]",
        ),
        (
            ["loop.optimizer.groups.image_encodr.lr=1e-5"],
            "loop.optimizer.groups.image_encodr: there is no such key; did you mean image_encoder?",
        ),
        (
            ["loop.optimizer.groups.heads.lr=0"],
            "a group's lr must be positive, got 0.0; loop.tuning.regime freezes groups",
        ),
        (
            ["loop.optimizer.groups.image_encoder.lr=1e-5", "loop.tuning.regime=lit"],
            "loop.optimizer.groups.image_encoder: would have no effect: "
            "loop.tuning.regime=lit and the losses train no such weights",
        ),
        (
            ["loop.patch_dropout=0.5", "loop.tuning.regime=lit"],
            "loop.patch_dropout: would have no effect: loop.tuning.regime=lit freezes the image encoder",
        ),
        (
            ["loop.loss={caption_weight: 0, contrastive_weight: 0}"],
            "one of caption_weight and contrastive_weight must be positive, got 0 for both",
        ),
    ],
)
def test_settings_that_cannot_be_trained(image_run, emoji_root, tmp_path, capsys, changes, expected):
    arguments = training_arguments(tmp_path / "run", pictures_source(emoji_root))
    assert refusal(main, *arguments, f"init={image_run}", *changes, capsys=capsys) == expected
    assert not (tmp_path / "run").exists()


def test_micro_batches_with_batch_norm_are_refused_before_anything_is_written(emoji_root, tmp_path, capsys):
    arguments = training_arguments(tmp_path / "run", pictures_source(emoji_root))
    changes = ["model.image.stem=conv", "loop.compute.micro_batch_size=2"]
    found = refusal(main, *arguments, *changes, capsys=capsys)
    assert found.startswith("loop.compute.micro_batch_size must be 0, got 2: image_encoder.patches")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("regime", ["poolers", "poolers_then_full", "lit", "temporal", "heads"])
def test_nothing_to_freeze(emoji_root, tmp_path, capsys, regime):
    arguments = training_arguments(tmp_path / "run", pictures_source(emoji_root))
    found = refusal(main, *arguments, f"loop.tuning.regime={regime}", capsys=capsys)
    reason = "would freeze weights that have learned nothing; give init=CHECKPOINT"
    assert found == f"loop.tuning.regime={regime} {reason}"
    assert not (tmp_path / "run").exists()


def test_the_checkpoint_s_preprocessing_goes_on(emoji_root, tmp_path):
    """And the frames are read with it too: the same run as with the setting spelt out."""
    first = tmp_path / "first"
    arguments = training_arguments(first, pictures_source(emoji_root))
    assert call(main, *arguments, "data.preprocessing.resize=squash", "loop.num_steps=1") == 0
    for name, spelt in {"inherited": "center_crop", "spelt": "squash"}.items():
        arguments = [*mixed_arguments(emoji_root, tmp_path / name), f"init={first}", "loop.num_steps=1"]
        assert call(main, *arguments, f"data.preprocessing.resize={spelt}") == 0
        assert load_checkpoint(tmp_path / name).preprocessing.resize is Resize("squash")
    losses = [read_log(tmp_path / name)[0]["loss"] for name in ("inherited", "spelt")]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("model.embed_dim=16", "its embed_dim is 12, the settings' model.embed_dim is 16"),
        ("model.image.stem=conv", "its image.stem is patch, the settings' model.image.stem is conv"),
        ("model.image.num_layers=2", "its image.num_layers is 1, the settings' model.image.num_layers is 2"),
    ],
)
def test_init_of_another_model(image_run, emoji_root, tmp_path, capsys, change, expected):
    arguments = training_arguments(tmp_path / "video", pictures_source(emoji_root))
    found = refusal(main, *arguments, f"init={image_run}", change, capsys=capsys)
    assert found == f"{image_run}: is another model: {expected}"
    assert not (tmp_path / "video").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("model.text.vocab_size=100", "model: vocab_size must be at least 259, got 100"),
        (
            "model.text.num_heads=5",
            "model: width must be a multiple of num_heads, got width 16 and num_heads 5",
        ),
    ],
)
def test_sizes_that_do_not_fit(emoji_root, tmp_path, capsys, change, expected):
    arguments = training_arguments(tmp_path / "run", pictures_source(emoji_root))
    assert refusal(main, *arguments, change, capsys=capsys) == expected
    assert not (tmp_path / "run").exists()


def test_init_of_a_video_checkpoint_without_its_time(image_run, emoji_root, tmp_path, capsys):
    first = tmp_path / "first"
    arguments = training_arguments(first, pictures_source(emoji_root))
    assert call(main, *arguments, "model.temporal.num_positions=4", "loop.num_steps=1") == 0
    arguments = training_arguments(tmp_path / "second", pictures_source(emoji_root))
    found = refusal(main, *arguments, f"init={first}", capsys=capsys)
    assert found.endswith("its temporal.num_positions is 4, the settings' model.temporal.num_positions is 0")


def test_init_that_is_not_there(emoji_root, tmp_path, capsys):
    arguments = training_arguments(tmp_path / "video", pictures_source(emoji_root))
    found = refusal(main, *arguments, f"init={tmp_path / 'missing'}", capsys=capsys)
    assert found == f"{tmp_path / 'missing'}: no such checkpoint"


def test_missing_pictures(tmp_path, capsys):
    found = refusal(main, *training_arguments(tmp_path / "run", pictures_source(tmp_path)), capsys=capsys)
    assert found.startswith(f"{tmp_path / 'pictures'}: no shards found")
    assert not (tmp_path / "run").exists()


def test_a_missing_manifest(tmp_path, capsys):
    manifest = tmp_path / "pack1.jsonl"
    found = refusal(main, *training_arguments(tmp_path / "run", clips_source(manifest)), capsys=capsys)
    assert found.startswith(f"{manifest}: cannot read this manifest")
    assert not (tmp_path / "run").exists()


def test_a_clip_that_is_not_there(copied_root, tmp_path, capsys):
    gone = copied_root / "clips" / "pack1" / "1f2.mp4"
    gone.unlink()
    found = refusal(main, *mixed_arguments(copied_root, tmp_path / "run"), capsys=capsys)
    assert found == f"{copied_root}/clips/pack1.jsonl: names {gone}, which does not exist"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_clip_cut_short(copied_root, tmp_path, capsys, num_workers):
    """One of four clips is more than the allowed share; once the file is whole again, the run goes on."""
    clip = copied_root / "clips" / "pack1" / "1f2.mp4"
    content = clip.read_bytes()
    clip.write_bytes(content[: len(content) // 2])
    arguments = [*mixed_arguments(copied_root, tmp_path / "run"), f"data.num_workers={num_workers}"]
    found = refusal(main, *arguments, capsys=capsys)
    listed = tmp_path / "run" / "bad_samples.jsonl"
    assert found.startswith(f"{listed}: 1 of ") and f"{clip}: cut short" in found
    assert json.loads(listed.read_text())["key"] == str(clip)
    clip.write_bytes(content)
    assert call(main, *arguments) == 0
    assert [line["step"] for line in read_log(tmp_path / "run")] == list(range(8))


def test_data_that_has_grown_is_other_data(copied_root, tmp_path, capsys):
    """The order of samples depends on their number: a run would see some twice and others never."""
    arguments = mixed_arguments(copied_root, tmp_path / "run")
    assert call(main, *arguments) == 0
    manifest = copied_root / "clips" / "pack1.jsonl"
    manifest.write_text(manifest.read_text() * 2)
    found = refusal(main, *arguments, capsys=capsys)
    assert found.startswith(
        f"{tmp_path / 'run'}: holds a run with samples of each source = [4, 8], not [8, 8]"
    )


def test_more_samples_a_batch_than_there_are(emoji_root, tmp_path, capsys):
    arguments = training_arguments(tmp_path / "run", pictures_source(emoji_root, batch_size=9))
    found = refusal(main, *arguments, capsys=capsys)
    found_size = f"{emoji_root / 'pictures'}: batch_size 9 exceeds its 8 samples; "
    assert found == found_size + "take a smaller one, loop.num_epochs=N, or resample=true for the source"
    assert not (tmp_path / "run").exists()


def test_a_damaged_state(image_run, emoji_root, tmp_path, capsys):
    output = Path(shutil.copytree(image_run, tmp_path / "copy"))
    state = saved_checkpoints(output)[-1] / "state"
    index = state / ".metadata"
    index.write_bytes(index.read_bytes()[:1000])
    found = refusal(main, *training_arguments(output, pictures_source(emoji_root)), capsys=capsys)
    why = "(pickle data was truncated); without its checkpoint the run goes on from an older one"
    assert found == f"{index}: missing or damaged {why}"
    shutil.rmtree(state.parent)
    assert call(main, *training_arguments(output, pictures_source(emoji_root))) == 0
    assert load_checkpoint(output).hash == load_checkpoint(image_run).hash


def cached_arguments(root: Path, output: Path, *, init: Path, cache: Path | None) -> list[str]:
    """Steps on clips and pictures whose frames never change, with a frozen image encoder."""
    sources = [clips_source(root / "clips" / "pack1.jsonl"), pictures_source(root)]
    sources[0] = sources[0].replace("}", ", sampling: uniform}")
    still = "{degrees: 0, min_scale: 1, max_scale: 1, shift: 0, flip: 0, color: 0, gray: 0}"
    settings = ["data.frame_size=16", f"data.token_cache={cache or 'null'}", f"loop.augmentation={still}"]
    return [*training_arguments(output, *sources), f"init={init}", "loop.tuning.regime=lit", *settings]


def test_training_from_a_token_cache(image_run, copied_root, tmp_path):
    """As without one up to roundings; the second run finds no frames any more, only their tokens."""
    plain, first, second = (tmp_path / name for name in ("plain", "first", "second"))
    caches = {plain: None, first: tmp_path / "cache", second: tmp_path / "cache"}
    for output, cache in caches.items():
        if output == second:
            for path in (copied_root / "clips" / "pack1").glob("*.mp4"):
                state = path.stat()
                path.write_bytes(bytes(state.st_size))
                os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        assert call(main, *cached_arguments(copied_root, output, init=image_run, cache=cache)) == 0
    losses = [[line["loss"] for line in read_log(output)] for output in caches]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3) and losses[1] == losses[2]
    assert load_checkpoint(first).hash == load_checkpoint(second).hash


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("loop.tuning.regime=full", "loop.tuning.regime=full trains the image encoder"),
        (
            "loop.tuning.regime=poolers_then_full",
            "loop.tuning.regime=poolers_then_full trains the image encoder",
        ),
        ("model.temporal.adaptor=joint", "model.temporal.adaptor=joint encodes a clip's frames together"),
        ("data.sources.0.sampling=dense", "data.sources[0].sampling=dense is random; uniform is not"),
        (
            "loop.augmentation.flip=0.5",
            "loop.augmentation changes the frames at random; it must have its defaults",
        ),
        ("data.frame_size=20", "data.frame_size must be the model's 16, got 20"),
    ],
)
def test_tokens_that_would_not_stay_the_same(image_run, emoji_root, tmp_path, capsys, change, expected):
    places = {"init": image_run, "cache": tmp_path / "cache"}
    arguments = cached_arguments(emoji_root, tmp_path / "run", **places)
    assert refusal(main, *arguments, change, capsys=capsys) == f"data.token_cache: {expected}"
    assert list(tmp_path.iterdir()) == []


def test_signals_and_the_same_command_again(emoji_root, tmp_path):
    """The terminal's Ctrl-C reaches the workers too, for it goes to the whole group of processes; and so may
    a scheduler's signal."""
    output, num_steps = tmp_path / "run", 40
    arguments = [*mixed_arguments(emoji_root, output), f"loop.num_steps={num_steps}", "data.num_workers=1"]
    command = [sys.executable, str(ROOT / "tools" / "train.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    reached = 0
    for number, code in [(signal.SIGINT, 130), (signal.SIGTERM, 75)]:
        with subprocess.Popen(command, start_new_session=True, **options) as process:
            deadline = time.monotonic() + 120
            while not (output / "log.jsonl").exists() or len(read_log(output)) < reached + 3:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.01)
            os.killpg(process.pid, number)
            out, err = process.communicate(timeout=120)
        assert process.returncode == code, err
        before, reached = reached, len(read_log(output))
        assert before + 3 <= reached < num_steps
        assert out == f"{output}: stopped and saved after step {reached}\n" and "Traceback" not in err
        assert saved_checkpoints(output)[-1].name == f"step-{reached:07d}"
        assert not processes_of_session(process.pid)
    ended = subprocess.run(command, timeout=120, **options)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"{output}: finished after step {num_steps}\n"
    assert [line["step"] for line in read_log(output)] == list(range(num_steps))


def processes_of_session(number: int) -> list[str]:
    """Those that have not ended."""
    command = ["ps", "-s", str(number), "-o", "stat=,args="]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return [line for line in lines if not line.startswith("Z")]


def test_a_folder_in_use(image_run, emoji_root, tmp_path, capsys):
    output = Path(shutil.copytree(image_run, tmp_path / "copy"))
    settings = (output / "settings.json").read_bytes()
    with locked(output):
        arguments = training_arguments(output, pictures_source(emoji_root))
        found = refusal(main, *arguments, "loop.keep_last=1", capsys=capsys)
    assert found.startswith(f"{output}: is in use by another run (process {os.getpid()} on ")
    assert (output / "settings.json").read_bytes() == settings and len(saved_checkpoints(output)) == 2


def test_a_full_disk(image_run, emoji_root, tmp_path, capsys):
    """The checkpoint before is kept, and the run goes on from there once there is room."""
    output = Path(shutil.copytree(image_run, tmp_path / "copy"))
    first, last = saved_checkpoints(output)
    shutil.rmtree(last)
    arguments = training_arguments(output, pictures_source(emoji_root))
    with files_of_at_most(20_000):
        found = refusal(main, *arguments, capsys=capsys)
    assert found.startswith(f"{last}: could not be written (") and "File too large" in found
    assert found.endswith(f"; the last good checkpoint is {first}")
    assert list((output / "checkpoints").iterdir()) == [first]
    assert call(main, *arguments) == 0
    assert load_checkpoint(output).hash == load_checkpoint(image_run).hash


def test_a_diverged_run_keeps_its_last_checkpoint(emoji_root, tmp_path, capsys):
    output = tmp_path / "run"
    arguments = training_arguments(output, pictures_source(emoji_root))
    found = refusal(main, *arguments, "loop.optimizer.lr=1e30", "loop.save_every=1", capsys=capsys)
    assert found.startswith(f"{output}: not finite at step 1: loss nan")
    assert [path.name for path in saved_checkpoints(output)] == ["step-0000001"]
