import json
from collections import Counter

import pytest

from coca_video.data.benchmarks.vocabulary import USUAL_TEMPLATES
from coca_video.errors import InputError
from coca_video.evaluation.published import BENCHMARKS, FILE, METRICS, SETTINGS, published

FIGURES = [figure for benchmark in BENCHMARKS for figure in published(benchmark)]


def test_no_figure_is_lost():
    assert len(FIGURES) == len(json.loads(FILE.read_text(encoding="utf-8"))["figures"]) > 200


@pytest.mark.parametrize(
    "figure", FIGURES, ids=lambda figure: f"{figure.model}-{figure.benchmark}-{figure.metric}"
)
def test_figures(figure):
    assert figure.setting in SETTINGS
    assert figure.metric in METRICS
    assert 1 < figure.value < (200 if figure.metric == "cider_d" else 100)
    assert figure.model and figure.source


def test_a_figure_stands_once():
    """The same figure of another split differs in its protocol."""
    keys = Counter((f.model, f.benchmark, f.setting, f.metric, f.protocol) for f in FIGURES)
    assert [key for key, count in keys.items() if count > 1] == []


def test_recall_grows_with_k():
    found = {(f.model, f.benchmark, f.setting, f.metric): f.value for f in FIGURES}
    compared = 0
    for (*key, metric), value in found.items():
        if metric.endswith("R@1"):
            for k in (5, 10):
                larger = found.get((*key, f"{metric.removesuffix('1')}{k}"))
                assert larger is None or larger > value, key
                compared += larger is not None
    assert compared > 20


@pytest.mark.parametrize(
    ("model", "benchmark", "setting", "metric", "value"),
    [
        ("CoCa", "imagenet", "zero-shot", "top1", 86.3),
        ("CoCa", "kinetics400", "fine-tuned", "top1", 88.9),
        ("CoCa", "coco", "zero-shot", "text_to_video.R@1", 51.2),
        ("CoCa", "coco", "fine-tuned", "cider_d", 143.6),
        ("VideoCoCa", "msrvtt_full", "zero-shot", "text_to_video.R@1", 34.3),
        ("VideoCoCa", "youcook2", "fine-tuned", "cider_d", 128.0),
        ("PE-core G/14", "kinetics400", "zero-shot", "top1", 76.9),
        ("InternVideo2-s2 1B", "msvd", "zero-shot", "video_to_text.R@1", 83.3),
        ("VideoPrism-LvT-g (paper)", "vatex", "zero-shot", "text_to_video.R@1", 62.5),
        ("open_clip CoCa B/32", "objectnet", "zero-shot", "top1", 44.7),
        ("open_clip CoCa L/14", "flickr30k", "zero-shot", "video_to_text.R@10", 99.9),
    ],
)
def test_known_figures(model, benchmark, setting, metric, value):
    found = [
        figure.value
        for figure in published(benchmark)
        if (figure.model, figure.setting, figure.metric) == (model, setting, metric)
    ]
    assert found == [value]


def test_a_benchmark_without_figures():
    assert published("msrvtt_1kb") == []


def test_an_unknown_benchmark():
    with pytest.raises(
        InputError, match="^msrvtt_1k: there is no such benchmark; did you mean msrvtt_1k[ab]\\?"
    ):
        published("msrvtt_1k")


def test_benchmarks_are_called_the_same_everywhere():
    assert set(USUAL_TEMPLATES) <= set(BENCHMARKS)
