import importlib.util
import json
import pickle
from pathlib import Path

import huggingface_hub
import open_clip
import open_clip_models
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.io import write_png
from torchvision.transforms import CenterCrop, Compose

from coca_video.checkpoint import Checkpoint
from coca_video.data.benchmarks.card import file_hash
from coca_video.data.manifest import ClipRecord, write_manifest
from coca_video.data.views import ViewsConfig
from coca_video.errors import InputError
from coca_video.evaluation.benchmark import BenchmarkConfig, Outcome, evaluate_benchmark
from coca_video.evaluation.open_clip_subject import OpenClipSubject, described, load_open_clip_subject
from coca_video.evaluation.parts import LoadingConfig
from coca_video.evaluation.retrieval import RetrievalConfig, Texts
from coca_video.evaluation.subject import FIRST_FRAME, MEAN_OF_FRAMES, CocaSubject, Subject
from coca_video.evaluation.zero_shot import ClassificationConfig
from coca_video.interop.files import write_tensors
from coca_video.loading import load

CPU = torch.device("cpu")
SIZE, CONTEXT, CLIP_VOCABULARY = 32, 12, 49408
TEXTS = [
    "a fox",
    "a very large pizza!!",
    "two people rowing a boat over the wide sea at night, again and again",
]
HERE = LoadingConfig(batch_size=4, num_workers=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A random CoCa of open_clip's as it lies on the Hub; its pictures have 32 pixels."""
    found = tmp_path_factory.mktemp("open_clip")
    model_cfg = {
        "embed_dim": 64,
        "custom_text": True,
        "text_cfg": text_cfg(layers=2) | {"embed_cls": True, "output_tokens": True},
        "multimodal_cfg": text_cfg(layers=1),
        "vision_cfg": {
            "image_size": SIZE,
            "patch_size": 8,
            "width": 64,
            "layers": 2,
            "attentional_pool": True,
            "attn_pooler_queries": 7,
            "attn_pooler_heads": 8,
            "output_tokens": True,
        },
    }
    (found / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": {}}))
    theirs = open_clip_models.tiny(width=64, vocab_size=CLIP_VOCABULARY)
    write_tensors(found / "open_clip_model.safetensors", theirs.state_dict())
    return found


def text_cfg(*, layers: int) -> dict:
    sizes = {"context_length": CONTEXT, "vocab_size": CLIP_VOCABULARY, "width": 64, "heads": 1}
    return sizes | {"layers": layers}


@pytest.fixture(scope="module")
def theirs(folder) -> OpenClipSubject:
    return load_open_clip_subject(f"open_clip:local-dir:{folder}", CPU)


@pytest.fixture(scope="module")
def checkpoint(folder) -> Checkpoint:
    return load(folder)


def frames(num: int, *, seed: int, size: int = SIZE) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (num, 3, size, size), dtype=torch.uint8, generator=generator)


def prepared(subject: Subject, *clips: Tensor) -> list[Tensor]:
    return [subject.prepare(clip, 0.5) for clip in clips]


def refusal(source: str) -> str:
    with pytest.raises(InputError) as caught:
        load_open_clip_subject(source, CPU)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"{source}: ")
    return message.removeprefix(f"{source}: ")


def test_embeddings_are_those_of_the_converted_checkpoint(theirs, checkpoint):
    ours = CocaSubject(checkpoint, CPU)
    clips = [frames(num, seed=num) for num in (1, 5, 3)]
    found = theirs.encode(prepared(theirs, *clips), [None] * 3).embeddings
    expected = ours.encode(prepared(ours, *clips), [None] * 3).embeddings
    assert theirs.readings == tuple(found) == (MEAN_OF_FRAMES, FIRST_FRAME)
    for reading in theirs.readings:
        torch.testing.assert_close(found[reading], expected[reading], rtol=0, atol=1e-4)
    torch.testing.assert_close(theirs.encode_texts(TEXTS), ours.encode_texts(TEXTS), rtol=0, atol=1e-4)
    assert theirs.scale == pytest.approx(ours.scale, rel=1e-6) and theirs.scale == pytest.approx(20)


def test_frames_see_the_models_own_transform(theirs):
    """Also where it resizes, which the two packages do not do alike."""
    clip = frames(2, seed=0, size=50)[..., :40]
    transform = open_clip.image_transform(SIZE, is_train=False)
    expected = [transform(Image.fromarray(each.permute(1, 2, 0).numpy())) for each in clip]
    assert torch.equal(theirs.prepare(clip, 0.5), torch.stack(expected))


def test_other_chunks_and_no_autocast_change_nothing(theirs, monkeypatch):
    clips = prepared(theirs, *(frames(num, seed=num) for num in (4, 1, 6)))
    whole, texts = theirs.encode(clips, [None] * 3).embeddings, theirs.encode_texts(TEXTS)
    monkeypatch.setattr("coca_video.evaluation.open_clip_subject.CHUNK", 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = theirs.encode(clips, [None] * 3).embeddings
        torch.testing.assert_close(theirs.encode_texts(TEXTS), texts, rtol=0, atol=1e-6)
    for reading in theirs.readings:
        torch.testing.assert_close(found[reading], whole[reading], rtol=0, atol=1e-6)
        assert not found[reading].requires_grad


class Stranger(torch.nn.Module):
    """Of another package: not CoCa, a scale with a dimension, dropout, and a tokenizer that returns lists."""

    def __init__(self):
        super().__init__()
        self.logit_scale = torch.nn.Parameter(torch.tensor([2.0]))
        self.dropout = torch.nn.Dropout()

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self.dropout(pixels.mean(dim=(2, 3)))

    def encode_text(self, ids: Tensor) -> Tensor:
        return self.dropout(F.one_hot(ids[:, 0] % 3, 3).float() * 5)


def test_a_stranger_with_the_interface():
    transform = open_clip.image_transform(8, is_train=False, mean=(0, 0, 0), std=(1, 1, 1))
    lengths = lambda texts: [[len(text)] for text in texts]  # noqa: E731
    subject = OpenClipSubject(Stranger(), transform, lengths, device=CPU, name="stranger")
    red, blue = torch.zeros(2, 1, 3, 8, 8, dtype=torch.uint8)
    red[:, 0], blue[:, 2] = 200, 100
    clip = torch.cat([red, red, red, blue])
    found = subject.encode(prepared(subject, clip), [None]).embeddings
    assert found[FIRST_FRAME].tolist() == [[1, 0, 0]]
    # A frame's brightness has no weight.
    torch.testing.assert_close(found[MEAN_OF_FRAMES], F.normalize(torch.tensor([[3.0, 0, 1]]), dim=-1))
    assert subject.encode_texts(["", "abcd"]).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert subject.scale == pytest.approx(7.389, abs=1e-3)
    assert subject.protocol()["image_size"] == 8


def test_prepare_travels_to_other_processes_and_crops_nowhere_else(theirs):
    travelled = pickle.loads(pickle.dumps(theirs.prepare))
    clip = frames(2, seed=0)
    assert torch.equal(travelled(clip, 0.5), theirs.prepare(clip, 0.5))
    with pytest.raises(InputError, match="num_crops must be 1"):
        theirs.prepare(clip, 0.0)


def test_what_results_say(folder, theirs):
    file = folder / "open_clip_model.safetensors"
    about = theirs.describe()
    assert about["checkpoint"] == f"open_clip:local-dir:{folder}" and about["trained_on"] == []
    assert about["kind"] == "open_clip interface" and json.dumps(about)
    protocol = theirs.protocol()
    assert protocol["image_size"] == SIZE and "\n" not in protocol["resize"]
    assert "Resize(size=32, interpolation=bicubic" in protocol["resize"]
    with_file = OpenClipSubject(
        theirs.model, theirs.prepare.transform, theirs.tokenizer, device=CPU, name="x", weights=file
    )
    assert with_file.describe()["sha256"] == file_hash(file) != about["sha256"]
    other = load_open_clip_subject(f"open_clip:local-dir:{folder}", CPU)
    assert other.describe() == about
    other.model.logit_scale.data += 1
    changed = OpenClipSubject(other.model, other.prepare.transform, other.tokenizer, device=CPU, name="x")
    assert changed.describe()["sha256"] != about["sha256"]


def test_a_description_is_the_same_in_every_process():
    """Addresses in memory would name another folder of parts in each."""
    first, second = (Compose([CenterCrop(8), Unnamed(), lambda picture: picture]) for _ in range(2))
    assert str(first) != str(second) and described(first) == described(second)
    assert described(first).startswith("Compose( CenterCrop(size=(8, 8)) <") and "0x" not in described(first)
    assert described(Stranger().encode_image).startswith("<bound method Stranger.encode_image of Stranger(")


class Unnamed:
    """A transform that has no text of its own."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A manifest of 24 pictures of 6 classes, of the model's size, with two texts each."""
    folder = tmp_path_factory.mktemp("pictures")
    records = []
    for i in range(24):
        file = folder / f"{i}.png"
        write_png(frames(1, seed=i)[0], str(file))
        texts = [f"picture {i} of a fox", f"number {7 * i}"]
        records.append(ClipRecord(file, texts[0], {"class": f"kind {i % 6}"}, more_texts=texts[1:]))
    write_manifest(folder / "pictures.jsonl", records)
    return folder / "pictures.jsonl"


def evaluated(subject: Subject, manifest: Path, output: Path) -> Outcome:
    config = BenchmarkConfig(
        str(manifest),
        loading=HERE,
        classification=ClassificationConfig(templates=["{}", "a drawing of {}"]),
        retrieval=RetrievalConfig(texts=Texts.all),
    )
    return evaluate_benchmark(subject, config, output=output)


def test_figures_are_those_of_the_converted_checkpoint(theirs, checkpoint, pictures, tmp_path):
    found = evaluated(theirs, pictures, tmp_path / "theirs")
    expected = evaluated(CocaSubject(checkpoint, CPU), pictures, tmp_path / "ours")
    for task in ("classification", "retrieval"):
        for reading, figures in found.result["tasks"][task]["figures"].items():
            assert figures == expected.result["tasks"][task]["figures"][reading]
    figures = found.result["tasks"]["classification"]["figures"][MEAN_OF_FRAMES]
    assert 0 < figures["top5"] < 100  # a figure that could differ
    assert [line["rank"] for line in found.predictions] == [line["rank"] for line in expected.predictions]


def test_the_emoji_benchmark_from_end_to_end(theirs, emoji_root, tmp_path):
    config = BenchmarkConfig(
        str(emoji_root / "clips" / "pack3.jsonl"),
        views=ViewsConfig(num_frames=3),
        loading=HERE,
        classification=ClassificationConfig(label="action", templates=["person {}", "man {}"]),
        retrieval=RetrievalConfig(subset="skintone="),
    )
    outcome = evaluate_benchmark(theirs, config, output=tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["num_evaluated"] == 6 and result["num_failed"] == 0
    assert result["model"] == theirs.describe() and result["protocol"]["reading"] == MEAN_OF_FRAMES
    assert set(result["tasks"]["retrieval"]["figures"]) == set(theirs.readings)
    assert len(outcome.predictions) == 6 and (tmp_path / "predictions.jsonl").exists()


def test_crops_are_refused_before_anything_is_read(theirs, emoji_root, tmp_path):
    config = BenchmarkConfig(
        str(emoji_root / "clips" / "pack3.jsonl"),
        views=ViewsConfig(num_crops=3),
        loading=LoadingConfig(num_workers=0),
        retrieval=RetrievalConfig(),
    )
    with pytest.raises(InputError, match="^evaluate.views.num_crops must be 1"):
        evaluate_benchmark(theirs, config, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_in_a_file(folder, tmp_path, monkeypatch):
    """A model that open_clip knows by a name, here one that it has been told of."""
    description = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    (tmp_path / "told.json").write_text(json.dumps(description))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [*open_clip.factory._MODEL_CONFIG_PATHS])
    open_clip.add_model_config(tmp_path / "told.json")
    file = folder / "open_clip_model.safetensors"
    subject = load_open_clip_subject(f"open_clip:told/{file}", CPU)
    assert subject.describe()["sha256"] == file_hash(file)
    assert subject.tokenizer(["a fox"]).shape == (1, CONTEXT)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(file.read_bytes()[:1000])
    assert refusal(f"open_clip:told/{damaged}").startswith("open_clip cannot load it (")
    assert "no weights are named; the tags of told are: none of its own" in refusal("open_clip:told")


def test_names_that_open_clip_does_not_know(tmp_path):
    assert refusal("open_clip:ViT-B-33/openai").startswith(
        "open_clip has no model 'ViT-B-33'; it has ViT-B-32"
    )
    message = refusal("open_clip:ViT-B-32/laion")
    assert message.startswith("'laion' is neither a file nor a tag; the tags of ViT-B-32 are: ")
    assert "laion2b_s34b_b79k" in message
    assert "no weights are named" in refusal("open_clip:ViT-B-32")
    assert "'missing.pt' is neither a file nor a tag" in refusal("open_clip:ViT-B-32/missing.pt")
    assert refusal(f"open_clip:local-dir:{tmp_path}").startswith("open_clip cannot load it (")


def test_weights_that_are_not_to_be_had(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert refusal("open_clip:ViT-B-32/laion2b_s34b_b79k").startswith(
        "open_clip cannot load it (Failed to dow"
    )


def test_without_open_clip(monkeypatch):
    find_spec = importlib.util.find_spec
    absent = lambda name: None if name == "open_clip" else find_spec(name)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", absent)
    assert refusal("open_clip:ViT-B-32/openai").endswith("pip install 'coca-video[open_clip]'")
