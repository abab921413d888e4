"""The emoji transfer benchmark: ACTIONS, RETRIEVAL and CAPTIONS on animations never seen as video."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from coca_video.checkpoint import Checkpoint
from coca_video.data.benchmarks.emoji import EXPECTED, TEST_PACK, clips_manifest, is_action, is_retrieval
from coca_video.data.loader import Clips, Source
from coca_video.data.manifest import ClipRecord
from coca_video.data.samples import Sample
from coca_video.data.sampling import Sampling
from coca_video.errors import InputError
from coca_video.evaluation.captioning import DecodingConfig, best_captions, caption_figures
from coca_video.evaluation.embedding import ClipFeatures, cached_source, encode_clips, encode_texts
from coca_video.evaluation.zero_shot import class_embeddings, top_k_figures
from coca_video.metrics.ranking import ranks, retrieval_figures

VIEWS = ("video", "first_frame", "mean_of_frames")
NUM_LISTED = 5  # classes, texts: listed with each prediction


@dataclass
class EmojiConfig:
    root: str  # where tools/prepare_data.py put the data
    pack: int = TEST_PACK  # another pack serves to choose settings without touching the test
    num_frames: int = 8
    batch_size: int = 32
    reduced_decoding: bool = False  # see data.loader.Clips
    token_cache: str | None = None  # a folder: later evaluations with the same image encoder need not encode
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    templates: list[str] = field(default_factory=lambda: ["person {}", "man {}", "woman {}"])

    def __post_init__(self) -> None:
        for name in ("num_frames", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.templates or not all("{}" in template for template in self.templates):
            raise ValueError(f"templates must each hold {{}} for the class, got {self.templates}")


def evaluate_emoji(
    checkpoint: Checkpoint, config: EmojiConfig, *, device: torch.device
) -> tuple[dict, list[dict]]:
    """The result, and a prediction for each clip.

    Raises InputError if the checkpoint was trained on the very clips to be evaluated.
    """
    manifest = clips_manifest(Path(config.root), config.pack)
    # By name: a data set may have moved, and a relative path is another place from another folder.
    if manifest.name in {Path(source).name for source in checkpoint.trained_on}:
        raise InputError(f"{checkpoint.path}: was trained on {manifest}, the clips to be evaluated")
    clips = _open_clips(checkpoint, manifest, config)
    features = encode_clips(checkpoint, _batches(clips, config.batch_size), device=device)
    tasks = {
        "actions": _actions(checkpoint, clips.records, features, config.templates, device=device),
        "retrieval": _retrieval(checkpoint, clips.records, features, device=device),
        "captions": _captions(checkpoint, clips.records, features, config.decoding, device=device),
    }
    if config.pack != TEST_PACK:
        for figures, _ in tasks.values():
            figures["num_expected"] = figures["num_evaluated"]
    result = {
        "benchmark": "emoji transfer",
        "setting": _setting(checkpoint.trained_on),
        "checkpoint": {
            "path": str(checkpoint.path),
            "sha256": checkpoint.hash,
            "trained_on": checkpoint.trained_on,
        },
        "protocol": _protocol(checkpoint, manifest, config),
        **{name: figures for name, (figures, _) in tasks.items()},
    }
    return result, _predictions(clips.records, [listed for _, listed in tasks.values()])


def _setting(trained_on: list[str]) -> str:
    """VIDEO once a manifest of clips was among the data, TRANSFER with pictures alone."""
    return "video" if any(source.endswith(".jsonl") for source in trained_on) else "transfer"


def _open_clips(checkpoint: Checkpoint, manifest: Path, config: EmojiConfig) -> Source:
    clips = Clips(
        manifest,
        frame_size=checkpoint.model.config.image.image_size,
        preprocessing=checkpoint.preprocessing,
        num_frames=config.num_frames,
        sampling=Sampling.uniform,
        reduced_decoding=config.reduced_decoding,
    )
    clips.records = [record for record in clips.records if is_action(record) or is_retrieval(record)]
    if not config.token_cache:
        return clips
    model = checkpoint.model
    if not model.temporal.encodes_frames_alone:
        adaptor = model.config.temporal.adaptor.value
        raise InputError(f"evaluate.token_cache: the {adaptor} adaptor encodes a clip's frames together")
    return cached_source(model, clips, config.token_cache, batch_size=config.batch_size, num_workers=0)


def _batches(clips: Source, batch_size: int) -> Iterator[list[Sample]]:
    for start in range(0, len(clips), batch_size):
        yield [clips.sample(i, rng=None) for i in range(start, min(start + batch_size, len(clips)))]


def _protocol(checkpoint: Checkpoint, manifest: Path, config: EmojiConfig) -> dict:
    return {
        "test_manifest": str(manifest),
        "manifest_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest(),
        "num_frames": config.num_frames,
        "sampling": Sampling.uniform.value,
        "image_size": checkpoint.model.config.image.image_size,
        "resize": checkpoint.preprocessing.resize.value,
        "reduced_decoding": config.reduced_decoding,
        "templates": config.templates,
        "decoding": str(config.decoding),
        "dual_softmax": False,
        "torch": torch.__version__,
    }


# Each task returns its figures, and what it says of single clips by their index in `records`.
Listed = dict[int, dict]


def _actions(
    checkpoint: Checkpoint,
    records: list[ClipRecord],
    features: ClipFeatures,
    templates: list[str],
    *,
    device: torch.device,
) -> tuple[dict, Listed]:
    chosen = [i for i, record in enumerate(records) if is_action(record)]
    names = [records[i].labels["action"] for i in chosen]
    classes = sorted(set(names))
    labels = torch.tensor([classes.index(name) for name in names])
    texts = class_embeddings(checkpoint, classes, templates, device=device)
    figures = _counts("action clips", len(chosen)) | {"num_classes": len(classes)}
    for view in VIEWS:
        figures[view] = top_k_figures(getattr(features, view)[chosen] @ texts.T, labels)
    scale = checkpoint.model.heads.log_scale.exp().cpu()
    probabilities = (scale * features.video[chosen] @ texts.T).softmax(dim=-1)
    return figures, {i: {"top_actions": _best(row, classes)} for i, row in zip(chosen, probabilities)}


def _retrieval(
    checkpoint: Checkpoint, records: list[ClipRecord], features: ClipFeatures, *, device: torch.device
) -> tuple[dict, Listed]:
    chosen = [i for i, record in enumerate(records) if is_retrieval(record)]
    names = [records[i].text for i in chosen]
    texts = encode_texts(checkpoint, names, device=device)
    figures: dict = _counts("retrieval clips", len(chosen))
    for view in VIEWS:
        similarity = getattr(features, view)[chosen] @ texts.T
        figures[view] = {
            "video_to_text": retrieval_figures(similarity),
            "text_to_video": retrieval_figures(similarity.T),
        }
    similarity = features.video[chosen] @ texts.T
    rank = ranks(similarity, torch.arange(len(chosen))) + 1
    listed = {
        i: {"nearest_texts": _best(row, names), "rank": int(place)}
        for i, row, place in zip(chosen, similarity, rank)
    }
    return figures, listed


def _captions(
    checkpoint: Checkpoint,
    records: list[ClipRecord],
    features: ClipFeatures,
    decoding: DecodingConfig,
    *,
    device: torch.device,
) -> tuple[dict, Listed]:
    """Every clip is captioned for its prediction; the figures are of the RETRIEVAL clips."""
    chosen = [i for i, record in enumerate(records) if is_retrieval(record)]
    references = [records[i].text for i in chosen]
    settings = {"decoding": decoding, "device": device}
    captions = best_captions(checkpoint, features.video_memory, features.video, **settings)
    first = features.first_frame_memory[chosen], features.first_frame[chosen]
    of_first = best_captions(checkpoint, *first, **settings)
    figures = _counts("retrieval clips", len(chosen)) | {
        "video": caption_figures([captions[i] for i in chosen], references),
        "first_frame": caption_figures(of_first, references),
    }
    return figures, {i: {"caption": caption} for i, caption in enumerate(captions)}


def _counts(task: str, num_evaluated: int) -> dict[str, int]:
    return {"num_evaluated": num_evaluated, "num_expected": EXPECTED[task]}


def _best(scores: Tensor, names: list[str]) -> list[list]:
    """The highest scores with their names, best first."""
    values, indices = scores.topk(min(NUM_LISTED, len(names)))
    return [[names[i], value] for i, value in zip(indices.tolist(), values.tolist())]


def _predictions(records: list[ClipRecord], listed: list[Listed]) -> list[dict]:
    """One dictionary a clip, of all tasks; what a task does not say of a clip is empty."""
    empty = {"top_actions": [], "nearest_texts": [], "rank": None}
    return [
        {
            "path": str(record.path),
            "text": record.text,
            "action": record.labels.get("action"),
            **empty,
            **{key: value for task in listed for key, value in task.get(i, {}).items()},
        }
        for i, record in enumerate(records)
    ]
