import json
import math
import os
import subprocess
import sys
from pathlib import Path

import open_clip
import open_clip_models
import pytest
import torch
from datasets import call, pictures_source, refusal, training_arguments
from open_clip_models import VOCAB_SIZE
from safetensors.torch import load_file

import coca_video
from coca_video.checkpoint import load_checkpoint
from coca_video.cli import load_config
from coca_video.commands.convert import main
from coca_video.commands.main import COMMANDS
from coca_video.commands.train import main as train_main
from coca_video.config import TrainConfig
from coca_video.data.tokenizer import Tokenizer
from coca_video.interop.files import write_tensors
from coca_video.interop.open_clip import describe, expected_shapes, flattened

CORPUS = ["a fox jumps over a fence", "pictures of many other animals", "they slept under the old trees"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """weights.pt of a small CoCa of open_clip's, with a tokenizer beside it; to be read only."""
    folder = tmp_path_factory.mktemp("open_clip")
    write_tensors(folder / "weights.pt", open_clip_models.tiny().state_dict())
    (folder / "tokenizer.json").write_text(Tokenizer.train(CORPUS * 3, vocab_size=VOCAB_SIZE).to_json())
    return folder


def refused(capsys, *arguments) -> str:
    """One line and exit code 2, with nothing written beside what was there."""
    return refusal(main, *map(str, arguments), capsys=capsys)


def test_there_and_back(folder, tmp_path, capsys):
    ours, theirs = tmp_path / "new" / "ours", tmp_path / "back" / "theirs.safetensors"
    assert not call(main, str(folder / "weights.pt"), str(ours), "--verbose")
    printed = capsys.readouterr().out
    assert "visual.proj (128, 128) -> heads.video.weight" in printed
    assert "text: 300 ids, context length 12, width 128, 2 + 1 layers, 2 heads" in printed
    assert "image: 32 px, patches of 8, width 64, 2 layers, 1 heads" in printed
    tensors = torch.load(folder / "weights.pt")
    assert f"{len(tensors)} tensors used, none missing, none unexpected" in printed
    assert sorted(path.name for path in ours.iterdir()) == [
        "config.json", "tokenizer.json", "weights.safetensors"
    ]  # fmt: skip
    assert not call(main, str(ours), str(theirs))
    back = load_file(theirs)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())
    description = json.loads((theirs.parent / "open_clip_config.json").read_text())
    assert description["model_cfg"]["text_cfg"]["context_length"] == 12
    assert description["preprocess_cfg"]["resize_mode"] == "shortest"
    assert sorted(path.name for path in theirs.parent.iterdir()) == ["open_clip_config.json", theirs.name]


def test_an_export_is_a_source_again(folder, tmp_path):
    call(main, str(folder / "weights.pt"), str(tmp_path / "ours"))
    call(main, str(tmp_path / "ours"), str(tmp_path / "theirs.bin"))
    again = tmp_path / "again"
    call(main, str(tmp_path / "theirs.bin"), str(again), "--tokenizer", str(folder / "tokenizer.json"))
    first, second = load_checkpoint(tmp_path / "ours"), load_checkpoint(again)
    assert first.hash == second.hash and first.model.config == second.model.config


def test_training_starts_from_an_import(folder, emoji_root, tmp_path):
    call(main, str(folder / "weights.pt"), str(tmp_path / "ours"))
    image = "image_size: 32, patch_size: 8, width: 64, num_layers: 2, num_heads: 1, mlp_width: 256"
    text = "context_length: 12, width: 128, num_heads: 2, mlp_width: 512"
    layers = "num_unimodal_layers: 2, num_multimodal_layers: 1"
    model = [
        f"model.image={{style: clip, dropout: 0.0, {image}}}",
        f"model.text={{style: open_clip, dropout: 0.0, {text}, {layers}}}",
        "model={embed_dim: 128, poolers: shared, num_caption_queries: 7, num_pooler_heads: 8}",
    ]
    run = training_arguments(tmp_path / "run", pictures_source(emoji_root))
    settings = [*model, f"init={tmp_path / 'ours'}", "data.frame_size=32", "loop.num_steps=1"]
    assert call(train_main, *run, *settings) == 0
    before, after = load_checkpoint(tmp_path / "ours").model, load_checkpoint(tmp_path / "run").model
    assert before.config == after.config
    assert not torch.equal(before.heads.vocabulary.weight, after.heads.vocabulary.weight)


def test_another_image_size(folder, tmp_path):
    call(main, str(folder / "weights.pt"), str(tmp_path / "ours"), "--image-size", "48")
    loaded = load_checkpoint(tmp_path / "ours").model
    assert loaded.config.image.image_size == 48 and len(loaded.image_encoder.positions.table) == 36


def test_ignored_entries_are_told(folder, tmp_path, capsys):
    torch.save({"epoch": 3, "state_dict": torch.load(folder / "weights.pt")}, tmp_path / "epoch.pt")
    vocabulary = str(folder / "tokenizer.json")
    call(main, str(tmp_path / "epoch.pt"), str(tmp_path / "ours"), "--tokenizer", vocabulary)
    assert "ignored: epoch\n" in capsys.readouterr().out


def test_an_existing_output_is_replaced_only_by_force(folder, tmp_path, capsys):
    source, ours, theirs = folder / "weights.pt", tmp_path / "ours", tmp_path / "theirs.pt"
    call(main, str(source), str(ours))
    call(main, str(ours), str(theirs))
    capsys.readouterr()
    assert refused(capsys, source, ours) == f"{ours}: exists; --force replaces it"
    assert refused(capsys, ours, theirs) == f"{theirs}: exists; --force replaces it"
    assert not call(main, str(source), str(ours), "--force", "--image-size", "16")
    assert not call(main, str(ours), str(theirs), "--force")
    assert torch.load(theirs)["visual.positional_embedding"].shape == (5, 64)


def test_a_folder_of_other_things_is_never_replaced(folder, tmp_path, capsys):
    (tmp_path / "precious").touch()
    found = refused(capsys, folder / "weights.pt", tmp_path, "--force")
    assert found == f"{tmp_path}: exists; it is no checkpoint, and is not replaced"
    assert (tmp_path / "precious").exists()


def test_a_vit_of_another_size(folder, tmp_path, capsys):
    source = folder / "weights.pt"
    found = refused(capsys, source, tmp_path / "ours", "--expect", "open_clip_b32")
    difference = "its visual.class_embedding is (64,), expected is (768,)"
    assert found == f"{source}: is no open_clip_b32: {difference}"
    found = refused(capsys, source, tmp_path / "ours", "--expect", "tiny")
    assert found.startswith("--expect tiny: open_clip's CoCa has no place for")
    found = refused(capsys, source, tmp_path / "ours", "--expect", "b32")
    assert found.startswith("model=b32: there is no such model; the choices are")
    assert os.listdir(tmp_path) == []


def test_the_papers_model_is_not_exported(image_run, tmp_path, capsys):
    found = refused(capsys, image_run, tmp_path / "theirs.pt")
    assert found == f"{image_run}: open_clip's CoCa has no place for image.style coca, only for clip"
    assert os.listdir(tmp_path) == []


def test_our_checkpoint_into_a_folder(image_run, tmp_path, capsys):
    found = refused(capsys, image_run, tmp_path / "ours")
    assert found.startswith(f"{image_run}: holds no open_clip weights; to export a checkpoint, end OUTPUT")


def test_a_tokenizer_has_no_place_in_an_export(folder, tmp_path, capsys):
    found = refused(capsys, folder / "weights.pt", tmp_path / "theirs.bin", "--tokenizer", "merges.txt")
    assert found == "--tokenizer merges.txt: open_clip's files of weights hold no tokenizer"


class Malicious:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def bad(kind: str, path: Path, tensors: dict) -> str:
    """Writes a bad file and returns what its refusal must say."""
    if kind == "malicious":
        torch.save({"a": Malicious(path.parent / "trace")}, path)
        return "would run code when read"
    if kind == "half-downloaded":
        write_tensors(path, tensors)
        path.write_bytes(path.read_bytes()[:100_000])
        return "is cut short"
    if kind == "clip":
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("text_decoder.")}
        write_tensors(path, tensors)
        return "it has no text_decoder.*: a CLIP model, not CoCa"
    tensors.pop("text.cls_emb")
    write_tensors(path, tensors)
    return "1 missing: text.cls_emb"


@pytest.mark.parametrize("kind", ["malicious", "half-downloaded", "clip", "incomplete"])
def test_bad_files(folder, tmp_path, capsys, kind):
    path = tmp_path / "bad.pt"
    expected = bad(kind, path, torch.load(folder / "weights.pt"))
    found = refused(capsys, path, tmp_path / "ours", "--tokenizer", folder / "tokenizer.json")
    assert found.startswith(f"{path}: ") and expected in found
    assert os.listdir(tmp_path) == ["bad.pt"]


def test_a_missing_file(tmp_path, capsys):
    path = tmp_path / "missing.pt"
    assert refused(capsys, path, tmp_path / "ours") == f"{path}: no such checkpoint"


@pytest.mark.parametrize(
    ("preset", "name", "num_tensors", "num_parameters"),
    [
        ("open_clip_b32", "coca_ViT-B-32", 629, 253_560_065),
        ("open_clip_l14", "coca_ViT-L-14", 773, 638_450_177),
    ],
)
def test_presets_are_open_clips_models(preset, name, num_tensors, num_parameters):
    config = load_config(TrainConfig, "train", ["recipe=emoji/image", f"model={preset}"]).model
    shapes = expected_shapes(config).values()
    assert (len(shapes), sum(map(math.prod, shapes))) == (num_tensors, num_parameters)
    theirs = flattened(open_clip.get_model_config(name))
    del theirs["multimodal_cfg.attn_pooler_heads"]  # which open_clip does not use
    assert theirs.items() <= flattened(describe(config)).items()


def console(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from coca_video.commands.main import main; main(); assert 'torch' not in sys.modules"
    repository = Path(coca_video.__file__).parents[1]
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True)


def test_console_help_needs_no_torch():
    result = console("--help")
    assert result.returncode == 0 and all(f"\n  {name} " in result.stdout for name in COMMANDS)


def test_console_unknown_command():
    result = console("convrt")
    assert result.returncode == 2
    assert result.stderr == f"error: convrt: no such command; the choices are {', '.join(COMMANDS)}\n"


def test_console_runs_a_command(tmp_path):
    result = console("convert", str(tmp_path / "missing.pt"), str(tmp_path / "ours"))
    assert result.returncode == 2
    assert result.stderr == f"error: {tmp_path / 'missing.pt'}: no such checkpoint\n"
