"""Results as evaluations write them, made by hand."""

import json
from copy import deepcopy
from pathlib import Path

from coca_video.evaluation.comparison import Section, Table, compare
from coca_video.evaluation.results import find_results

TOP = {"top1": 60.0, "top5": 80.0, "mean_top1_top5": 70.0, "mean_class_accuracy": 59.0}
RANKS = {"R@1": 40.0, "R@5": 60.0, "R@10": 70.0, "median_rank": 3.0, "mean_rank": 20.0}
BOTH = {"text_to_video": RANKS, "video_to_text": RANKS}
CAPTIONS = {"bleu_4": 0.25, "rouge_l": 0.5, "cider_d": 0.75, "exact_match": 1.5, "distinct_ratio": 0.5}
COUNTS = {"num_evaluated": 1000, "num_failed": 0, "num_expected": 1000}


def classification(**figures: dict) -> dict:
    """figures: by reading, what differs from TOP."""
    return COUNTS | {
        "num_classes": 400,
        "label": "class",
        "templates": {"sets": ["clip_kinetics"], "prompts": ["a photo of {}.", "a video of {}."]},
        "views": "softmax_sum",
        "figures": {reading: TOP | each for reading, each in figures.items()},
    }


def retrieval(*, dual_softmax: bool = False, **recalls: float) -> dict:
    """recalls: by reading, text to video at rank 1."""
    figures = {name: BOTH | {"text_to_video": RANKS | {"R@1": value}} for name, value in recalls.items()}
    found = COUNTS | {"num_texts": 1000, "texts": "first", "max_texts": 0, "figures": figures}
    if dual_softmax:
        better = BOTH | {"text_to_video": RANKS | {"R@1": 99.0}}
        found |= {"dual_softmax": {next(iter(recalls)): better}, "dual_softmax_scale": 14.25}
    return found


def captioning(*, groups: dict[str, float] | None = None, **ciders: float) -> dict:
    """ciders: by reading, CIDEr-D of 0 to 10; groups: that of each group."""
    found = COUNTS | {
        "num_references": 5000,
        "decoding": "beam search (8), the nearest to the clip's embedding",
        "prompt": "",
        "figures": {reading: CAPTIONS | {"cider_d": value} for reading, value in ciders.items()},
        "not_computed": {"spice": "java is not installed"},
    }
    if groups:
        found["by_group"] = {
            name: CAPTIONS | {"num_evaluated": 10, "cider_d": value} for name, value in groups.items()
        }
    return found


def head(task: str, *, settings: dict | None = None, **figures: float | dict) -> dict:
    """What a learned task's head has said."""
    about = {"task": task, "settings": settings or {}, "num_classes": 3129, "views": "softmax_sum"}
    return COUNTS | about | {"figures": {"video": figures}}


def make_result(checkpoint: str = "runs/a/step_10", *, reasons: tuple[str, ...] = (), **changes) -> dict:
    """Of Kinetics-400, complete and official unless there are reasons; tasks={...} replaces the task."""
    return deepcopy(
        {
            "format": 1,
            "dataset": "kinetics400",
            "title": "Kinetics-400",
            "split": "val",
            "num_expected": 1000,
            "num_evaluated": 1000,
            "num_missing": 0,
            "num_failed": 0,
            "missing": [],
            "failed": [],
            "notes": [],
            "manifest": "data/kinetics400/val.jsonl",
            "manifest_sha256": "5" * 64,
            "annotations": {"val.csv": "a" * 64},
            "model": {
                "checkpoint": checkpoint,
                "sha256": "0123456789abcdef" * 4,
                "trained_on": ["data/pictures"],
                "adaptor": "attentional",
            },
            "protocol": {
                "name": "",
                "reading": "video",
                "num_frames": 8,
                "sampling": "uniform",
                "stride": 1,
                "num_clips": 1,
                "num_crops": 1,
                "image_size": 224,
                "resize": "center_crop",
                "merged_per_block": 0,
                "reduced_decoding": False,
            },
            "versions": {"coca_video": "1.0", "torch": "2.10"},
            "tasks": {"classification": classification(video={})},
            "official": not reasons,
            "not_official_because": list(reasons),
        }
        | changes
    )


def save_result(folder: Path, result: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "result.json"
    path.write_text(json.dumps(result), encoding="utf-8")
    return path


def saved(folder: Path, **results: dict) -> list[Section]:
    for name, result in results.items():
        save_result(folder / name, result)
    return compare(find_results([folder])[0])


def table_of(folder: Path, **results: dict) -> Table:
    (section,) = saved(folder, **results)
    (table,) = section.tables
    return table


def top1(value: float, **changes) -> dict:
    return make_result(tasks={"classification": classification(video={"top1": value})}, **changes)


PARTIAL = {
    "reasons": ("3 listed examples are not on this disk",),
    "num_missing": 3,
    "missing": ["x", "y", "z"],
}
