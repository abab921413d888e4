import json

import pytest
from results import PARTIAL, classification, make_result, retrieval, saved, table_of, top1

from coca_video.evaluation.comparison import headlines
from coca_video.evaluation.comparison_page import as_text
from coca_video.evaluation.published import published


def test_sections_by_data_set_and_split_tables_by_task(tmp_path):
    both = make_result(tasks={"retrieval": retrieval(video=40.0), "classification": classification(video={})})
    other = make_result(split="test")
    sections = saved(tmp_path, b=both, a=top1(50.0), c=other)
    assert [section.heading for section in sections] == ["Kinetics-400, test", "Kinetics-400, val"]
    assert [table.task for table in sections[1].tables] == ["classification", "retrieval"]
    assert [len(table.official) for table in sections[1].tables] == [2, 1]


@pytest.mark.parametrize("values, best", [((50.0, 60.0), [1]), ((60.0, 60.04), [0, 1]), ((60.0, 60.06), [1])])
def test_the_best_share_what_is_shown(tmp_path, values, best):
    table = table_of(tmp_path, a=top1(values[0]), b=top1(values[1]))
    assert [i for i, row in enumerate(table.official) if 0 in row.best] == best


def test_less_is_better_for_ranks(tmp_path):
    worse, better = (make_result(tasks={"retrieval": retrieval(video=40.0)}) for _ in range(2))
    better["tasks"]["retrieval"]["figures"]["video"]["text_to_video"]["median_rank"] = 2.0
    table = table_of(tmp_path, a=worse, b=better)
    median = [column.metric for column in table.columns].index("text_to_video.median_rank")
    assert [median in row.best for row in table.official] == [False, True]


def test_what_is_not_official_stands_below_and_is_never_the_best(tmp_path):
    table = table_of(tmp_path, a=top1(99.0, **PARTIAL), b=top1(50.0))
    assert [row.shown[0] for row in table.official] == ["50.0"] and 0 in table.official[0].best
    (row,) = table.not_official
    assert (row.shown[0], row.badge, row.best) == ("99.0", "partial", set())
    assert [name for name, _ in table.parts][-1] == "Not official: not to be compared"
    (headline,) = headlines(saved(tmp_path))
    assert headline.bars[0].value == "50.0"


def test_without_an_official_result_nothing_is_compared(tmp_path):
    sections = saved(tmp_path, a=top1(99.0, **PARTIAL))
    assert headlines(sections) == [] and len(sections[0].tables[0].published) > 0


def test_published_figures_stand_beside_ours(tmp_path):
    table = table_of(tmp_path, a=top1(50.0))
    figures = [each for each in published("kinetics400") if each.metric == "top1"]
    assert sorted(row.values[0] for row in table.published) == sorted(each.value for each in figures)
    row = next(row for row in table.published if row.name == "PE-core G/14")
    assert (row.reading, row.badge, row.shown[0], row.best) == ("zero-shot", "published", "76.9", set())
    assert "448 px" in row.protocol and "arXiv 2504.13181" in row.source
    (headline,) = headlines(saved(tmp_path))
    highest = max(each.value for each in figures if each.setting == "zero-shot")
    assert (headline.bars[1].about, headline.bars[1].value) == ("published zero-shot", f"{highest:.1f}")


def test_a_headline_is_of_the_leading_reading(tmp_path):
    """One that was chosen by its figures on the test itself would flatter."""
    figures = classification(video={"top1": 50.0}, first_frame={"top1": 55.0})
    (headline,) = headlines(saved(tmp_path, a=make_result(tasks={"classification": figures})))
    assert (headline.bars[0].about, headline.bars[0].value) == ("video", "50.0")


def test_equal_results_give_no_warning(tmp_path):
    assert table_of(tmp_path, a=top1(50.0), b=top1(60.0)).warnings == []


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"manifest_sha256": "6" * 64}, f"manifest_sha256 is {'5' * 16} in A, {'6' * 16} in B."),
        ({"num_expected": 990}, "num_expected is 1,000 in A, 990 in B."),
        ({"annotations": {"val.csv": "b" * 64}}, f"sha256 of val.csv is {'a' * 16} in A, {'b' * 16} in B."),
        ({"annotations": {}}, f"sha256 of val.csv is {'a' * 16} in A, not known in B."),
        (
            {"tasks": {"classification": classification(video={}) | {"num_classes": 399}}},
            "classification.num_classes is 400 in A, 399 in B.",
        ),
    ],
)
def test_results_of_different_data_are_told(tmp_path, changes, said):
    said = said.replace("A", f"{tmp_path}/a").replace("B", f"{tmp_path}/b")
    table = table_of(tmp_path, a=make_result(), b=make_result(**changes))
    assert table.warnings == [f"Not made from the same data: {said}"]


def test_what_was_not_computed_is_a_dash(tmp_path):
    result = json.loads(json.dumps(top1(float("nan"))))
    del result["tasks"]["classification"]["figures"]["video"]["top5"]
    (row,) = table_of(tmp_path, a=result).official
    assert row.shown[0] == "–" and "–" in as_text(saved(tmp_path))
    assert row.best == {1, 2} and row.shown[1:] == ["70.0", "59.0"]  # there is no top-5 at all
