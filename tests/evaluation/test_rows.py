"""Rows are read where they end: in tables."""

import pytest
from results import captioning, classification, head, make_result, retrieval, saved, table_of, top1

from coca_video.errors import InputError
from coca_video.evaluation.comparison import headlines
from coca_video.evaluation.published import published


def test_a_row_for_each_reading_the_leading_one_first(tmp_path):
    found = classification(first_frame={"top1": 1.0}, video={"top1": 2.0}, mean_of_frames={"top1": 3.0})
    rows = table_of(tmp_path, a=make_result(tasks={"classification": found})).official
    assert [(row.reading, row.shown[0]) for row in rows] == [
        ("video", "2.0"),
        ("first frame", "1.0"),
        ("mean of frames", "3.0"),
    ]
    assert [row.frames for row in rows] == ["8", "1", "8"]
    assert rows[0].examples == "1,000 of 1,000"
    assert rows[0].about == "attentional, sha256 0123456789ab"
    assert rows[0].protocol == "uniform, 224 px, center_crop, clip_kinetics (2 prompts), 400 classes"


def test_protocols_say_what_differs(tmp_path):
    result = make_result(tasks={"classification": classification(video={})})
    result["protocol"] |= {"name": "slow", "sampling": "dense", "stride": 4, "num_clips": 4, "num_crops": 3}
    result["protocol"]["merged_per_block"] = 8
    (row,) = table_of(tmp_path, a=result).official
    assert row.views == "4 × 3"
    assert row.protocol.startswith("slow, dense, stride 4, 224 px, ")
    assert row.protocol.endswith("views: softmax_sum, merged per block")


def test_captions_are_in_the_units_of_papers(tmp_path):
    groups = {"in-domain": 1.25, "out-domain": 0.5}
    result = make_result(tasks={"captioning": captioning(video=1.2, first_frame=1.1, groups=groups)})
    table = table_of(tmp_path, a=result)
    assert [column.name for column in table.columns] == [
        *("BLEU-4", "ROUGE-L", "CIDEr", "exact matches", "distinct captions")
    ]
    assert table.official[0].shown == ["25.0", "50.0", "120.0", "1.5", "50.0"]
    cider = [(row.reading, row.examples, row.shown[2]) for row in table.official]
    assert cider == [
        ("video", "1,000 of 1,000", "120.0"),
        ("– in-domain", "10", "125.0"),
        ("– out-domain", "10", "50.0"),
        ("first frame", "1,000 of 1,000", "110.0"),
    ]
    assert [2 in row.best for row in table.official] == [True, False, False, False]


def test_how_captions_are_worded(tmp_path):
    plain, wordy = (make_result(name, tasks={"captioning": captioning(video=1.2)}) for name in "ab")
    plain["tasks"]["captioning"]["figures"]["video"] |= {"mean_length": 9.44, "repeated_ngrams": 0.0125}
    wordy["tasks"]["captioning"]["figures"]["video"] |= {"mean_length": 30.0, "repeated_ngrams": 0.25}
    table = table_of(tmp_path, a=plain, b=wordy)
    assert [column.name for column in table.columns][-2:] == ["repeated 4-grams", "mean length"]
    assert [row.shown[-2:] for row in table.official] == [["1.2", "9.4"], ["25.0", "30.0"]]
    assert [row.best & {5, 6} for row in table.official] == [{5}, set()]  # no length is the best


def test_dual_softmax_is_labelled_and_never_the_best(tmp_path):
    found = retrieval(video=40.0, first_frame=30.0, dual_softmax=True)
    table = table_of(tmp_path, a=make_result(dataset="msrvtt_1ka", tasks={"retrieval": found}))
    assert [row.reading for row in table.official] == ["video", "first frame", "video, dual softmax"]
    assert table.official[-1].shown[0] == "99.0" and table.official[-1].best == set()
    assert "dual softmax of scale 14.25" in table.official[-1].protocol
    assert "dual softmax" not in table.official[0].protocol
    assert table.official[0].best == set(range(10))  # ties with the first frame but for one
    assert [each.bars[0].value for each in headlines(saved(tmp_path))] == ["40.0", "40.0"]


def test_whole_but_not_official(tmp_path):
    unknown = classification(video={}) | {"num_expected": None}
    result = make_result(
        reasons=("no official number",), num_expected=None, tasks={"classification": unknown}
    )
    (row,) = table_of(tmp_path, a=result).not_official
    assert (row.badge, row.reasons, row.examples) == ("not official", ["no official number"], "1,000 of –")


@pytest.mark.parametrize(
    "figures, said",
    [
        ({"top1": "high"}, "top1 of classification.video must be a number, got 'high'"),
        ([1.0], r"classification.video must hold figures by name, got \[1.0\]"),
    ],
)
def test_figures_that_are_none(tmp_path, figures, said):
    result = make_result()
    result["tasks"]["classification"]["figures"]["video"] = figures
    with pytest.raises(InputError, match=rf"result\.json: {said}"):
        table_of(tmp_path, a=result)


def test_figures_of_one_model_and_protocol_share_a_row(tmp_path):
    result = make_result(dataset="coco", split="test", tasks={"retrieval": retrieval(video=40.0)})
    table = table_of(tmp_path, a=result)
    (row,) = [row for row in table.published if row.name == "CoCa" and row.reading == "zero-shot"]
    figures = [each for each in published("coco") if (each.model, each.setting) == ("CoCa", "zero-shot")]
    known = {each.metric: each.value for each in figures}
    assert row.values == [known.get(column.metric) for column in table.columns]
    assert len([value for value in row.values if value]) == 6


@pytest.mark.parametrize("changes", [{"split": "train"}, {"dataset": "my_videos"}])
def test_no_published_figures_of_other_data(tmp_path, changes):
    assert table_of(tmp_path, a=top1(50.0, **changes)).published == []


def test_a_head_s_figures_by_group(tmp_path):
    types = {"yes/no": 80.0, "number": 40.0, "other": 50.0}
    found = head("question_answering", accuracy=60.0, distinct=0.25, answer_type=types)
    table = table_of(tmp_path, a=make_result(dataset="vqa_v2", tasks={"head": found}))
    assert [(column.group, column.name) for column in table.columns] == [
        ("", "accuracy"),
        ("", "distinct answers"),
        ("by type of answer", "yes/no"),
        ("by type of answer", "number"),
        ("by type of answer", "other"),
    ]
    assert table.official[0].shown == ["60.0", "25.0", "80.0", "40.0", "50.0"]
    assert table.official[0].protocol.endswith("center_crop, question answering, 3,129 classes")
    (published_row,) = table.published
    assert (published_row.name, published_row.reading, published_row.shown[0]) == (
        "CoCa",
        "fine-tuned",
        "82.3",
    )


def test_how_a_head_was_asked(tmp_path):
    written = head("question_answering", accuracy=60.0) | {"answers": "written"}
    blind = head("entailment", settings={"blind": True}, accuracy=33.3, relation={"neutral": 40.0})
    for name, found, said in (("a", written, "answers written freely"), ("b", blind, "3,129 classes, blind")):
        table = table_of(tmp_path / name, a=make_result(dataset="own", tasks={"head": found}))
        assert table.official[0].protocol.endswith(said)
    assert [column.full_name for column in table.columns] == ["accuracy", "by relation neutral"]


def test_nothing_zero_shot_beside_a_head(tmp_path):
    found = head("classification", top1=80.0)
    both = {"head": found, "classification": classification(video={})}
    (section,) = saved(tmp_path, a=make_result(tasks=both))
    zero_shot, learned = section.tables
    assert (zero_shot.title, learned.title) == ("classification", "learned task")
    assert {row.reading for row in learned.published} == {"frozen", "fine-tuned"}
    assert "zero-shot" in {row.reading for row in zero_shot.published}
    best = {bar.name: bar.value for bar in headlines([section])[1].bars}
    assert best["runs/a/step_10"] == "80.0"


def test_answers_that_nobody_here_can_judge(tmp_path):
    table = table_of(tmp_path, a=make_result(tasks={"head": head("question_answering")}, dataset="own"))
    assert table.columns == [] and table.official[0].values == []
