import pytest

from coca_video.data.manifest import ClipRecord
from coca_video.evaluation.caption_quality import (
    CaptionConfig,
    caption_figures,
    coco_results,
    judge_captions,
)
from coca_video.evaluation.features import Features
from coca_video.evaluation.selection import Evaluated
from coca_video.metrics.captioning import caption_scores

NAMES = ["red fox on grass", "man rowing boat fast", "ghost in the dark"]


def test_figures():
    captions = ["a red fox", "A red fox!", "a star"]
    figures = caption_figures(captions, [["a red fox"], ["a red fox"], ["a pizza"]])
    assert figures["exact_match"] == pytest.approx(100 * 2 / 3)
    assert 0 < figures["cider_d"] < 10
    assert figures["distinct_ratio"] == pytest.approx(len({"a red fox", "a star"}) / 3)


def test_figures_of_right_and_wrong_captions():
    references = [[name] for name in NAMES]
    right = caption_figures(NAMES, references)
    expected = {"cider_d": pytest.approx(10.0), "exact_match": 100.0, "distinct_ratio": 1.0}
    assert {name: right[name] for name in expected} == expected
    wrong = caption_figures(["none of these words"] * 3, references)
    expected = {"cider_d": 0.0, "exact_match": 0.0, "distinct_ratio": pytest.approx(1 / 3)}
    assert {name: wrong[name] for name in expected} == expected


def evaluated() -> Evaluated:
    """Four clips, of which the second could not be read."""
    records = [
        ClipRecord(None, name, {"domain": domain}, id=str(i), more_texts=[f"{name} again"])
        for i, (name, domain) in enumerate(zip([*NAMES, "pizza with cheese"], ["near", "far", "near", "far"]))
    ]
    captions = {"video": [NAMES[0], "a ghost", "pizza"], "first_frame": ["x", "y", "z"]}
    return Evaluated(records, None, Features([0, 2, 3], {}, captions, []))


def test_captions_are_judged_by_all_texts_of_their_clip():
    figures, listed = judge_captions(evaluated(), CaptionConfig(java=False))
    assert {i: each["caption"] for i, each in listed.items()} == {0: NAMES[0], 2: "a ghost", 3: "pizza"}
    references = [[record.text, *record.more_texts] for record in (evaluated().records[i] for i in (0, 2, 3))]
    scores = caption_scores([NAMES[0], "a ghost", "pizza"], references)
    assert figures["figures"]["video"]["cider_d"] == scores["cider_d"] > 0
    assert figures["figures"]["video"]["exact_match"] == pytest.approx(100 / 3)
    assert figures["num_references"] == 6 and figures["num_evaluated"] == 3


def test_a_subset_is_judged_all_are_listed():
    figures, listed = judge_captions(evaluated(), CaptionConfig(subset="domain=far", java=False))
    assert figures["num_evaluated"] == 1 and len(listed) == 3


def test_groups():
    figures, _ = judge_captions(evaluated(), CaptionConfig(group_by="domain", java=False))
    assert {name: each["num_evaluated"] for name, each in figures["by_group"].items()} == {
        "far": 1,
        "near": 2,
    }
    assert figures["by_group"]["near"]["exact_match"] == 50.0


def test_coco_s_results_format():
    """Ids are numbers where that keeps them apart."""
    records = [ClipRecord(None, "a", {}, id=name) for name in ("391895", "-x_1", "007", "7", "9" * 5000)]
    found = coco_results(records, ["one", "two", "three", "four", "five"])
    assert found[0] == {"image_id": 391895, "caption": "one"}
    assert [each["image_id"] for each in found[1:]] == ["-x_1", "007", 7, "9" * 5000]
