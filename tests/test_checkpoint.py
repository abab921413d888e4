import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from tiny import image_config, noise, shaken, temporal_config

from coca_video.checkpoint import load_checkpoint, save_checkpoint, saved_checkpoints
from coca_video.data.tokenizer import Tokenizer
from coca_video.data.transforms import Preprocessing, Resize
from coca_video.errors import InputError
from coca_video.layers.patches import Stem
from coca_video.layers.positions import resize_grid
from coca_video.models.adaptors import Adaptor
from coca_video.models.coca import CoCa

PREPROCESSING = Preprocessing(resize=Resize("squash"), mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
TOKENIZER = Tokenizer.train(["a fox jumps over a fence", "a fox sleeps"] * 3, vocab_size=307)


def coca(**changes) -> CoCa:
    return tiny.coca(text=tiny.text_config(vocab_size=TOKENIZER.vocab_size), **changes)


def save(path: Path, model: CoCa, **changes) -> Path:
    save_checkpoint(
        path,
        config=model.config,
        **{
            "weights": model.state_dict(),
            "tokenizer": TOKENIZER,
            "preprocessing": PREPROCESSING,
            "trained_on": ["data/pictures", "data/clips.jsonl"],
            **changes,
        },
    )
    return path


@pytest.fixture
def saved(tmp_path) -> Path:
    return save(tmp_path / "saved", coca())


def refusal(path: Path, **options) -> str:
    with pytest.raises(InputError) as caught:
        load_checkpoint(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit_config(path: Path, change) -> None:
    description = json.loads((path / "config.json").read_text())
    change(description)
    (path / "config.json").write_text(json.dumps(description))


def test_round_trip(tmp_path):
    temporal = temporal_config(Adaptor.factorised)
    model = shaken(coca(image=image_config(stem=Stem("conv")), temporal=temporal))
    loaded = load_checkpoint(save(tmp_path / "here", model))
    assert loaded.model.config == model.config and loaded.model.config.image.stem is Stem("conv")
    assert loaded.preprocessing == PREPROCESSING and loaded.preprocessing.resize is Resize("squash")
    assert loaded.trained_on == ["data/pictures", "data/clips.jsonl"]
    text = "a fox over a fence"
    ids = loaded.tokenizer.encode(text, max_length=12)
    assert ids == TOKENIZER.encode(text, max_length=12) and loaded.tokenizer.decode(ids) == text
    weights = loaded.model.state_dict()
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert not loaded.model.training and loaded.new_weights == []


def test_weights_keep_their_layout(tmp_path):
    """The conv stem's stays the one that is fast."""
    model = coca(image=image_config(stem=Stem.conv))
    loaded = load_checkpoint(save(tmp_path / "here", model)).model
    strides = {name: weight.stride() for name, weight in loaded.named_parameters()}
    assert strides == {name: weight.stride() for name, weight in model.named_parameters()}
    stem = dict(loaded.image_encoder.patches.named_parameters())["project.1.0.weight"]
    assert stem.is_contiguous(memory_format=torch.channels_last) and not stem.is_contiguous()


def test_views_are_saved_as_what_they_show(tmp_path):
    """An average kept in one block of memory, say."""
    model = coca()
    block = torch.cat([weight.flatten() for weight in model.state_dict().values()])
    sizes = [weight.numel() for weight in model.state_dict().values()]
    views = {
        name: part.view(weight.shape)
        for (name, weight), part in zip(model.state_dict().items(), block.split(sizes))
    }
    plain, viewing = save(tmp_path / "plain", model), save(tmp_path / "viewing", model, weights=views)
    assert load_checkpoint(plain).hash == load_checkpoint(viewing).hash


def test_a_training_state_of_an_older_version_is_passed_over(saved):
    torch.save({"step": 7}, saved / "state.pt")
    assert load_checkpoint(saved).path == saved


def test_the_hash_names_the_weights(tmp_path, saved):
    content = (saved / "weights.safetensors").read_bytes()
    assert load_checkpoint(saved).hash == hashlib.sha256(content).hexdigest()
    again, other = save(tmp_path / "again", coca()), save(tmp_path / "other", coca(seed=1))
    assert load_checkpoint(again).hash == load_checkpoint(saved).hash != load_checkpoint(other).hash


def test_saving_over_an_older_one(tmp_path, saved):
    (saved / "stray").touch()
    save(saved, coca(seed=1))
    loaded = load_checkpoint(saved).model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in coca(seed=1).state_dict().items())
    assert sorted(file.name for file in saved.iterdir()) == [
        "config.json",
        "tokenizer.json",
        "weights.safetensors",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_what_a_crash_left_is_no_checkpoint(tmp_path):
    """A folder under its temporary name is passed over, and does not keep the same step from being saved."""
    checkpoints = tmp_path / "checkpoints"
    first = save(checkpoints / "step-0000004", coca())
    save(checkpoints / "step-0000008.tmp", coca(seed=1))
    assert saved_checkpoints(tmp_path) == [first]
    assert load_checkpoint(tmp_path).path == first
    second = save(checkpoints / "step-0000008", coca(seed=1))
    assert saved_checkpoints(tmp_path) == [first, second]
    assert load_checkpoint(tmp_path).path == second
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-0000004", "step-0000008"]


def test_checkpoints_are_ordered_by_their_steps(tmp_path):
    names = ["step-9999999", "step-10000000", "step-0000004.tmp", "step-of-dance", "notes"]
    for name in names:
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert [path.name for path in saved_checkpoints(tmp_path)] == names[:2]


@pytest.mark.parametrize("adaptor", Adaptor)
def test_an_adaptor_is_new_to_a_checkpoint_of_pictures(saved, adaptor):
    temporal = temporal_config(adaptor)
    plain, loaded = load_checkpoint(saved).model, load_checkpoint(saved, temporal=temporal)
    assert loaded.model.config.temporal == temporal
    added = {f"temporal.{name}" for name in loaded.model.temporal.state_dict()}
    assert set(loaded.new_weights) == added == loaded.model.state_dict().keys() - plain.state_dict().keys()
    assert bool(added) is (adaptor is not Adaptor.mean)
    fresh = coca(temporal=temporal).temporal  # zeros where the start is nothing
    for name, weight in loaded.model.temporal.named_parameters():
        assert weight.isfinite().all() and weight.any() == fresh.get_parameter(name).any(), name
    pixels = noise(2, 3, 16, 16)
    expected = plain.encode_image(pixels)
    torch.testing.assert_close(loaded.model.encode_image(pixels), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("adaptor", [Adaptor.attentional, Adaptor.factorised, Adaptor.joint])
def test_a_trained_adaptor_is_kept(tmp_path, adaptor):
    model = coca(temporal=temporal_config(adaptor))
    shaken(model.temporal)
    other = temporal_config(Adaptor.attentional, num_positions=5)
    loaded = load_checkpoint(save(tmp_path / "here", model), temporal=other)
    assert loaded.model.config.temporal == model.config.temporal and loaded.new_weights == []
    expected = model.temporal.state_dict()
    assert all(torch.equal(value, expected[n]) for n, value in loaded.model.temporal.state_dict().items())


def test_pictures_of_another_size(saved):
    plain, larger = load_checkpoint(saved).model, load_checkpoint(saved, image_size=32).model
    assert larger.config.image.image_size == 32 and plain.config.image.image_size == 16
    table = resize_grid(plain.image_encoder.positions.table, num_patches=16)
    assert torch.equal(larger.image_encoder.positions.table, table)
    pixels = noise(2, 3, 32, 32)
    assert torch.equal(larger.encode_image(pixels), plain.encode_image(pixels))


def test_a_size_that_does_not_fit_the_patches(saved):
    assert "image_size must be a multiple of patch_size 8, got 20" in refusal(saved, image_size=20)


def test_no_such_folder(tmp_path):
    assert refusal(tmp_path / "missing") == f"{tmp_path / 'missing'}: no such checkpoint"


def test_an_empty_folder(tmp_path):
    assert refusal(tmp_path).startswith(f"{tmp_path}: neither a checkpoint")


@pytest.mark.parametrize("name", ["weights.safetensors", "tokenizer.json"])
def test_a_missing_file(saved, name):
    (saved / name).unlink()
    assert refusal(saved).startswith(f"{saved / name}: ")


@pytest.mark.parametrize("name", ["weights.safetensors", "tokenizer.json", "config.json"])
@pytest.mark.parametrize("num_bytes", [0, 5, 100])
def test_a_truncated_file(saved, name, num_bytes):
    (saved / name).write_bytes((saved / name).read_bytes()[:num_bytes])
    assert refusal(saved).startswith(f"{saved / name}: ")


def test_half_of_the_weights(saved):
    file = saved / "weights.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert refusal(saved).startswith(f"{file}: cannot be read as weights")


def test_weights_of_another_width(tmp_path, saved):
    other = save(tmp_path / "other", coca(embed_dim=24))
    shutil.copy(other / "weights.safetensors", saved)
    expected = f"{saved / 'weights.safetensors'}: 2 tensors do not fit config.json's model, the first is "
    assert refusal(saved) == expected + "heads.text.weight"


def test_weights_of_another_depth(tmp_path, saved):
    other = save(tmp_path / "other", coca(image=image_config(num_layers=3)))
    shutil.copy(other / "weights.safetensors", saved)
    assert "the first is image_encoder.blocks.2." in refusal(saved)


def test_a_tokenizer_of_another_size(saved):
    (saved / "tokenizer.json").write_text(Tokenizer.train(["a fox"], vocab_size=270).to_json())
    path, size, wanted = re.fullmatch(
        r"(.*): the tokenizer has (\d+) ids, the model has (\d+)", refusal(saved)
    ).groups()
    assert path == str(saved) and int(size) <= 270 < int(wanted) == TOKENIZER.vocab_size


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda config: config.update(format=1), "format 1, this version reads 2"),
        (lambda config: config["model"].update(depth=3), "unknown key depth"),
        (lambda config: config["model"]["image"].update(depth=3), "unknown key depth"),
        (lambda config: config["model"]["image"].update(stem="none"), "'none' is not a valid Stem"),
        (lambda config: config["model"]["image"].update(image_size=17), "image_size must be a multiple"),
        (lambda config: config.pop("preprocessing"), "'preprocessing'"),
        (lambda config: config.update(model=3), "not a coca_video checkpoint's config"),
    ],
)
def test_another_config(saved, change, expected):
    edit_config(saved, change)
    message = refusal(saved)
    assert message.startswith(f"{saved / 'config.json'}: ") and expected in message


@pytest.mark.parametrize("content", ["[]", "3", '"text"', "{}", "{"])
def test_a_config_of_something_else(saved, content):
    (saved / "config.json").write_text(content)
    assert refusal(saved).startswith(f"{saved / 'config.json'}: not a coca_video checkpoint's config")
