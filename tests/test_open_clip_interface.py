import pickle
from pathlib import Path

import numpy as np
import open_clip_models
import pytest
import tiny
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from coca_video.checkpoint import Checkpoint, save_checkpoint
from coca_video.data.manifest import ClipRecord, write_manifest
from coca_video.data.pictures import read_picture
from coca_video.data.tokenizer import Tokenizer
from coca_video.data.transforms import Preprocessing, Resize
from coca_video.evaluation.benchmark import BenchmarkConfig, evaluate_benchmark
from coca_video.evaluation.parts import LoadingConfig
from coca_video.evaluation.retrieval import RetrievalConfig, Texts
from coca_video.evaluation.subject import CocaSubject
from coca_video.evaluation.zero_shot import ClassificationConfig
from coca_video.interop.files import write_tensors
from coca_video.loading import load
from coca_video.metrics.classification import mean_class_accuracy, top_figures
from coca_video.models.adaptors import Adaptor
from coca_video.open_clip_interface import as_open_clip

CPU = torch.device("cpu")
# The second holds "!" inside a run of signs, whose id is that of CLIP's padding; the last is cut.
TEXTS = [
    "a fox",
    "a fox!?!! (it jumps!!!)",
    "",
    "two people rowing a boat over the wide sea at night, again and again",
]
CLASSES = [f"kind {i}" for i in range(6)]
TEMPLATES = ["{}", "a drawing of {}"]


def ours(*, preprocessing: Preprocessing | None = None, **changes) -> Checkpoint:
    """A model with random weights that reads texts by a tokenizer of our own."""
    tokenizer = Tokenizer.train(["a fox jumps over two people", "a drawing of a kind"] * 3, vocab_size=300)
    model = tiny.coca(text=tiny.text_config(vocab_size=tokenizer.vocab_size), **changes)
    return Checkpoint(tiny.shaken(model), tokenizer, preprocessing or Preprocessing(), [], Path("ours"))


def converted(folder: Path) -> Checkpoint:
    """open_clip's, which reads texts by CLIP's tokenizer."""
    weights = open_clip_models.tiny(width=64, vocab_size=49408).state_dict()
    write_tensors(folder / "weights.safetensors", weights)
    return load(folder / "weights.safetensors")


@pytest.fixture(scope="module", params=["ours", "converted"])
def checkpoint(request, tmp_path_factory) -> Checkpoint:
    """On the disk, as figures name its file's hash."""
    folder = tmp_path_factory.mktemp(request.param)
    return converted(folder) if request.param == "converted" else saved(ours(), folder / "ours")


def saved(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    save_checkpoint(
        path,
        config=checkpoint.model.config,
        weights=checkpoint.model.state_dict(),
        tokenizer=checkpoint.tokenizer,
        preprocessing=checkpoint.preprocessing,
        trained_on=[],
    )
    return load(path)


def picture(seed: int, *, width: int = 40, height: int = 27) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@torch.inference_mode()
def test_texts_mean_what_they_mean_to_the_model(checkpoint):
    model, _, tokenizer = as_open_clip(checkpoint)
    context = checkpoint.model.config.text.context_length
    ids = tokenizer(TEXTS)
    assert ids.shape == (len(TEXTS), context) and ids.dtype == torch.int64
    own, mask = checkpoint.tokenizer.encode_batch(TEXTS, max_length=context)
    assert torch.equal(ids[:, : own.shape[1]], own) and not (ids[:, own.shape[1] :] != 0).any()
    expected = checkpoint.model.encode_text(own, mask)
    torch.testing.assert_close(model.encode_text(ids), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(model.encode_text(ids, normalize=True), expected, rtol=0, atol=1e-6)
    for row, text in enumerate(TEXTS):  # one text alone has no padding of its own
        alone = checkpoint.model.encode_text(*checkpoint.tokenizer.encode_batch([text], max_length=context))
        torch.testing.assert_close(model.encode_text(tokenizer(text)), alone, rtol=0, atol=1e-6)
        torch.testing.assert_close(alone[0], expected[row], rtol=0, atol=1e-6)


def test_the_context(checkpoint):
    model, _, tokenizer = as_open_clip(checkpoint)
    assert model.context_length == checkpoint.model.config.text.context_length
    assert tokenizer(TEXTS, context_length=5).shape == (len(TEXTS), 5)
    assert tokenizer(TEXTS, 5)[3, -1] == checkpoint.tokenizer.end
    with pytest.raises(ValueError, match=f"at most {model.context_length}, got 99"):
        tokenizer(TEXTS, context_length=99)


@pytest.mark.parametrize("resize", Resize)
@pytest.mark.parametrize("size", [(40, 27), (27, 40), (16, 16), (9, 9)])
def test_pictures_are_resized_as_ours_bit_for_bit(resize, size, tmp_path):
    given = Preprocessing(resize, mean=[0.5, 0.4, 0.3], std=[0.1, 0.2, 0.3])
    model, transform, _ = as_open_clip(ours(preprocessing=given))
    for mode in ("RGB", "L"):
        original = picture(0, width=size[0], height=size[1]).convert(mode)
        original.save(tmp_path / "picture.png")
        expected = given.normalised(given.resized(read_picture(tmp_path / "picture.png"), size=16))[0]
        found = transform(original)
        assert found.dtype == torch.float32 and torch.equal(found, expected)
    assert torch.equal(pickle.loads(pickle.dumps(transform))(original), found)
    assert model.visual.image_size == (16, 16)


@pytest.mark.parametrize("adaptor", Adaptor)
@torch.inference_mode()
def test_forward(adaptor):
    checkpoint = ours(temporal=tiny.temporal_config(adaptor))
    checkpoint.model.train()
    model, transform, tokenizer = as_open_clip(checkpoint)
    assert not model.training and not checkpoint.model.training
    pixels, ids = torch.stack([transform(picture(i)) for i in range(4)]), tokenizer(TEXTS)
    pictures, texts, scale = model(pixels, ids)
    assert torch.equal(pictures, checkpoint.model.encode_image(pixels))
    assert torch.equal(pictures, model.encode_image(pixels, normalize=True))
    assert torch.equal(texts, model.encode_text(ids))
    torch.testing.assert_close(pictures.norm(dim=-1), torch.ones(4))
    assert scale == model.logit_scale.exp() == checkpoint.model.heads.log_scale.exp()
    assert model(image=pixels)[1] is None and model(text=ids)[0] is None
    assert next(model.parameters()).data_ptr() == next(checkpoint.model.parameters()).data_ptr()


class Pictures(Dataset):
    """24 pictures of six classes, each with two texts, as torchvision's data sets are."""

    classes = CLASSES

    def __init__(self, transform=None, *, texts: bool = False):
        self.transform, self.texts = transform, texts

    def __len__(self) -> int:
        return 24

    def __getitem__(self, i: int):
        target = [f"a fox, {i} years old", f"number {7 * i}"] if self.texts else i % len(CLASSES)
        return self.transform(picture(i)) if self.transform else picture(i), target


def loader(dataset: Dataset) -> DataLoader:
    """Batches of five, texts as lists."""

    def collate(samples: list[tuple]) -> tuple[Tensor, Tensor | list]:
        pixels, targets = zip(*samples)
        return torch.stack(pixels), list(targets) if dataset.texts else torch.tensor(targets)

    return DataLoader(dataset, batch_size=5, collate_fn=collate)


@pytest.fixture(scope="module")
def figures(checkpoint, tmp_path_factory) -> dict:
    """What our own evaluation says of these pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    records = []
    pictures, captioned = Pictures(), Pictures(texts=True)
    for i in range(len(pictures)):
        (image, target), (_, texts) = pictures[i], captioned[i]
        image.save(folder / f"{i}.png")
        labels = {"class": CLASSES[target]}
        records.append(ClipRecord(folder / f"{i}.png", texts[0], labels, more_texts=texts[1:]))
    write_manifest(folder / "pictures.jsonl", records)
    config = BenchmarkConfig(
        str(folder / "pictures.jsonl"),
        loading=LoadingConfig(num_workers=0),
        classification=ClassificationConfig(templates=TEMPLATES),
        retrieval=RetrievalConfig(texts=Texts.all),
    )
    outcome = evaluate_benchmark(CocaSubject(checkpoint, CPU), config, output=folder / "evaluate")
    return {name: task["figures"]["video"] for name, task in outcome.result["tasks"].items()}


def clip_benchmark(metric: str):
    pytest.importorskip("sklearn", reason="clip_benchmark needs scikit-learn")
    return pytest.importorskip(f"clip_benchmark.metrics.{metric}", reason="clip-benchmark is not installed")


def test_clip_benchmark_classifies_alike(checkpoint, figures):
    """By its own classifier and logits; what it then counts is tested apart."""
    theirs = clip_benchmark("zeroshot_classification")
    model, transform, tokenizer = as_open_clip(checkpoint)
    templates = [each.replace("{}", "{c}") for each in TEMPLATES]
    classifier = theirs.zero_shot_classifier(model, tokenizer, CLASSES, templates, "cpu", amp=False)
    scores, labels = theirs.run_classification(
        model, classifier, loader(Pictures(transform)), "cpu", amp=False
    )
    found, expected = top_figures(scores, labels), figures["classification"]
    assert 0 < expected["top5"] < 100  # figures that could differ
    assert expected == {**found, "mean_class_accuracy": mean_class_accuracy(scores, labels)}


def test_clip_benchmark_counts_alike(checkpoint, figures):
    theirs = clip_benchmark("zeroshot_classification")
    if np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        pytest.skip("clip_benchmark's accuracy fails with NumPy 2.4 or later")
    model, transform, tokenizer = as_open_clip(checkpoint)
    templates = [each.replace("{}", "{c}") for each in TEMPLATES]
    data = loader(Pictures(transform))
    found = theirs.evaluate(model, data, tokenizer, CLASSES, templates, "cpu", amp=False)
    expected = figures["classification"]
    assert 100 * found["acc1"] == pytest.approx(expected["top1"])
    assert 100 * found["acc5"] == pytest.approx(expected["top5"])
    assert 100 * found["mean_per_class_recall"] == pytest.approx(expected["mean_class_accuracy"])


def test_clip_benchmark_retrieves_alike(checkpoint, figures):
    evaluate = clip_benchmark("zeroshot_retrieval").evaluate
    model, transform, tokenizer = as_open_clip(checkpoint)
    data = loader(Pictures(transform, texts=True))
    found = evaluate(model, data, tokenizer, "cpu", amp=False, recall_k_list=[1, 5, 10])
    expected = figures["retrieval"]
    assert 0 < expected["text_to_video"]["R@10"] < 100
    for k in (1, 5, 10):
        assert 100 * found[f"image_retrieval_recall@{k}"] == pytest.approx(
            expected["text_to_video"][f"R@{k}"]
        )
        assert 100 * found[f"text_retrieval_recall@{k}"] == pytest.approx(expected["video_to_text"][f"R@{k}"])


def test_clip_benchmark_with_its_mixed_precision(checkpoint):
    evaluate = clip_benchmark("zeroshot_retrieval").evaluate
    model, transform, tokenizer = as_open_clip(checkpoint)
    data = loader(Pictures(transform, texts=True))
    found = evaluate(model, data, tokenizer, "cpu", amp=True, recall_k_list=[24])
    assert found["text_retrieval_recall@24"] > 0.5 and found["image_retrieval_recall@24"] == 1
