"""Figures that others have published on the public benchmarks, to set beside one's own.

They stand in published.json. Every figure names its source and what that source says of the protocol. Figures
of different protocols (frames, templates, dual softmax, how many videos could still be had) are no ranking.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from coca_video.data.benchmarks.vocabulary import no_such

FILE = Path(__file__).with_name("published.json")

BENCHMARKS = (
    "kinetics400",
    "kinetics600",
    "kinetics700",
    "moments",
    "ucf101",
    "hmdb51",
    "ssv2",
    "imagenet",
    "imagenet_v2",
    "imagenet_a",
    "imagenet_r",
    "imagenet_sketch",
    "objectnet",
    "coco",
    "flickr30k",
    "nocaps",
    "msrvtt_1ka",
    "msrvtt_1kb",
    "msrvtt_full",
    "msvd",
    "vatex",
    "activitynet",
    "didemo",
    "youcook2",
    "vqa_v2",
    "snli_ve",
    "nlvr2",
    "msrvtt_qa",
    "msvd_qa",
)
SETTINGS = ("zero-shot", "frozen", "fine-tuned")  # frozen: only a pooler and a classifier were trained
METRICS = (
    "top1",
    "top5",
    "mean_top1_top5",
    "mean_class_accuracy",
    *(f"{direction}.R@{k}" for direction in ("text_to_video", "video_to_text") for k in (1, 5, 10)),
    "bleu4",
    "meteor",
    "cider_d",
    "spice",
    "rouge_l",
    "accuracy",
    "consistency",
)


@dataclass(frozen=True)
class Published:
    """One figure of one model."""

    model: str
    benchmark: str  # of BENCHMARKS
    setting: str  # of SETTINGS
    metric: str  # of METRICS; "video" stands for the picture or the clip
    value: float  # per cent; captioning metrics are x 100, CIDEr included
    protocol: str  # what the source says of it; empty: nothing
    source: str


def published(benchmark: str) -> list[Published]:
    """The figures on one of BENCHMARKS, in the order of the file; empty where none is known.

    Raises InputError for a name that is no benchmark.
    """
    if benchmark not in BENCHMARKS:
        raise no_such("benchmark", benchmark, BENCHMARKS)
    figures = json.loads(FILE.read_text(encoding="utf-8"))["figures"]
    return [Published(**figure) for figure in figures if figure["benchmark"] == benchmark]
