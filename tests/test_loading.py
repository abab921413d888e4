import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import open_clip
import open_clip_models
import pytest
import torch
from open_clip_models import VOCAB_SIZE

import coca_video
from coca_video.checkpoint import save_checkpoint
from coca_video.data.tokenizer import Tokenizer
from coca_video.data.transforms import Resize
from coca_video.errors import InputError
from coca_video.interop.files import write_tensors
from coca_video.loading import load
from coca_video.models.adaptors import Adaptor, TemporalConfig

REVISION = "0123456789abcdef0123456789abcdef01234567"
CORPUS = ["a fox jumps over a fence", "pictures of many other animals", "they slept under the old trees"]
TOKENIZER = Tokenizer.train(CORPUS * 3, vocab_size=VOCAB_SIZE)


@pytest.fixture(scope="module")
def theirs():
    return open_clip_models.tiny()


def hub_layout(folder: Path, theirs, *, weights="open_clip_model.safetensors", **preprocess_cfg) -> Path:
    """A folder as open_clip lays it out on the Hub, but for the tokenizer, which is one of ours."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / weights, theirs.state_dict())
    (folder / "tokenizer.json").write_text(TOKENIZER.to_json(), encoding="utf-8")
    model_cfg = {"vision_cfg": {"image_size": 32}, "text_cfg": {"heads": 2}}
    description = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
    (folder / "open_clip_config.json").write_text(json.dumps(description))
    return folder


def refusal(source, **options) -> str:
    with pytest.raises(InputError) as caught:
        load(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same_weights(first, second) -> bool:
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@torch.inference_mode()
def test_a_file_with_its_tokenizer_beside_it(tmp_path, theirs):
    folder = hub_layout(tmp_path, theirs)
    (folder / "open_clip_config.json").unlink()
    loaded = coca_video.load(str(folder / "open_clip_model.safetensors"))
    assert loaded.preprocessing.mean == [0.48145466, 0.4578275, 0.40821073]
    assert loaded.preprocessing.std == [0.26862954, 0.26130258, 0.27577711]
    assert loaded.preprocessing.resize is Resize.center_crop
    assert loaded.tokenizer.encode("a fox", max_length=9) == TOKENIZER.encode("a fox", max_length=9)
    assert loaded.path == folder / "open_clip_model.safetensors" and len(loaded.hash) == 64
    assert loaded.trained_on == loaded.new_weights == [] and not loaded.model.training
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded.model.encode_image(pixels), theirs.encode_image(pixels))


@pytest.mark.parametrize("weights", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_a_folder_as_on_the_hub(tmp_path, theirs, weights):
    pixels = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1], "resize_mode": "squash"}
    loaded = load(hub_layout(tmp_path, theirs, weights=weights, **pixels))
    assert loaded.preprocessing.mean == [0.5, 0.4, 0.3] and loaded.preprocessing.std == [0.2, 0.2, 0.1]
    assert loaded.preprocessing.resize is Resize.squash and loaded.path == tmp_path / weights


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"resize_mode": "longest"}, "resize_mode is longest, allowed are shortest, squash"),
        ({"interpolation": "bilinear"}, "interpolation is bilinear, only bicubic is allowed"),
        ({"mean": [0.5]}, "mean and std must be three numbers each"),
        ({"mean": 0.5}, "'float' object is not iterable"),
    ],
)
def test_preprocessing_that_ours_cannot_do(tmp_path, theirs, settings, expected):
    folder = hub_layout(tmp_path, theirs, **settings)
    assert refusal(folder).startswith(f"{folder / 'open_clip_config.json'}: {expected}")


def test_clips_tokenizer_where_none_lies_beside(tmp_path):
    """The vocabulary is that inside the installed open_clip."""
    write_tensors(tmp_path / "weights.pt", open_clip_models.tiny(width=64, vocab_size=49408).state_dict())
    ids = load(tmp_path / "weights.pt").tokenizer.encode("a fox jumps!", max_length=12)
    assert ids == open_clip.tokenize("a fox jumps!", 12)[0, : len(ids)].tolist()


def test_a_tokenizer_of_another_size(tmp_path, theirs):
    folder = hub_layout(tmp_path, theirs)
    (folder / "tokenizer.json").write_text(Tokenizer.train(CORPUS, vocab_size=270).to_json())
    assert refusal(folder).endswith(f"the tokenizer has 270 ids, the model has {VOCAB_SIZE}")


def test_our_own_checkpoint_in_the_same_way(tmp_path, theirs):
    imported = load(hub_layout(tmp_path / "theirs", theirs))
    save_checkpoint(
        tmp_path / "ours",
        config=imported.model.config,
        weights=imported.model.state_dict(),
        tokenizer=imported.tokenizer,
        preprocessing=imported.preprocessing,
        trained_on=[],
    )
    loaded = load(tmp_path / "ours")
    assert same_weights(loaded.model, imported.model) and loaded.model.config == imported.model.config
    assert loaded.preprocessing == imported.preprocessing and loaded.path == tmp_path / "ours"


def test_another_adaptor(tmp_path, theirs):
    temporal = TemporalConfig(adaptor=Adaptor.joint, num_positions=3)
    loaded = load(hub_layout(tmp_path, theirs), temporal=temporal)
    assert loaded.new_weights == ["temporal.positions.table"] and loaded.model.config.temporal == temporal
    plain = load(tmp_path).model
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded.model.encode_image(pixels), plain.encode_image(pixels))


@torch.inference_mode()
def test_another_image_size(tmp_path, theirs):
    """Resized once and for all, the positions are those that the plain model makes for such pictures."""
    loaded, plain = load(hub_layout(tmp_path, theirs), image_size=48), load(tmp_path)
    assert loaded.model.config.image.image_size == 48 and plain.model.config.image.image_size == 32
    assert loaded.model.image_encoder.positions.table.shape == (36, 64)
    pixels = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded.model.encode_image(pixels), plain.model.encode_image(pixels))


@pytest.mark.parametrize("image_size", [50, 0, -8])
def test_an_image_size_that_patches_do_not_fill(tmp_path, theirs, image_size):
    message = refusal(hub_layout(tmp_path, theirs), image_size=image_size)
    assert message == f"image_size must be a multiple of patch_size 8, got {image_size}"


@pytest.fixture
def hub_cache(tmp_path, monkeypatch) -> Path:
    """The Hub's cache on this disk, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.mark.parametrize("source", ["owner/name", "hf-hub:owner/name", "owner/name@main"])
def test_a_repository_of_the_hub(hub_cache, theirs, source):
    repository = hub_cache / "models--owner--name"
    hub_layout(repository / "snapshots" / REVISION, theirs)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    assert load(source).path == repository / "snapshots" / REVISION / "open_clip_model.safetensors"


def test_a_repository_that_is_not_to_be_had(hub_cache):
    message = refusal("owner/missing")
    assert message.startswith("owner/missing: neither here nor to be had from the Hugging Face Hub (")
    assert "owner/missing@v2: neither here" in refusal("owner/missing@v2")


def test_what_is_no_name_of_a_repository(tmp_path):
    for source in ("missing", "./some/missing", str(tmp_path / "missing"), Path("owner/name")):
        assert refusal(source) == f"{source}: no such checkpoint"


def test_without_the_hub(monkeypatch):
    find_spec = importlib.util.find_spec
    absent = lambda name: None if name == "huggingface_hub" else find_spec(name)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", absent)
    message = refusal("owner/name")
    assert message.startswith("owner/name: no such checkpoint; ")
    assert message.endswith("pip install 'coca-video[hub]'")


def test_the_package_alone_is_light():
    code = "import sys, coca_video; assert 'torch' not in sys.modules; coca_video.load"
    repository = Path(coca_video.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], cwd=repository, check=True)
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        coca_video.other
