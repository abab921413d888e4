"""Pages are read back as a reader would: the words of each row of each table."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from results import captioning, classification, make_result, retrieval, save_result

from coca_video.errors import InputError
from coca_video.evaluation.comparison import (
    Section,
    Table,
    as_text,
    compare,
    find_results,
    write_comparison,
)
from coca_video.evaluation.published import published

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Words of each row, links and pictures; what is opened must be closed."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.rows: list[str] = []
        self.best: list[str] = []
        self.attributes: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []
        self.text = " ".join(self.words)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open or not data.strip():
            return
        self.words += data.split()
        if "tr" in self.open:
            self.rows[-1] += " ".join(data.split()) + " "
            if "best" in self.attributes[-1][1].get("class", ""):
                self.best.append(data.strip())

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.attributes if name == tag]


def saved(folder: Path, **results: dict) -> list[Section]:
    for name, result in results.items():
        save_result(folder / name, result)
    return compare(find_results([folder])[0])


def table_of(folder: Path, **results: dict) -> Table:
    (section,) = saved(folder, **results)
    (table,) = section.tables
    return table


def html(folder: Path, **results: dict) -> Page:
    sections = saved(folder, **results)
    write_comparison(folder / "report.html", sections, title="A title", passed_over=[])
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def markdown(folder: Path, **results: dict) -> str:
    sections = saved(folder, **results)
    write_comparison(folder / "report.md", sections, title="A title", passed_over=[])
    return (folder / "report.md").read_text(encoding="utf-8")


def top1(value: float, **changes) -> dict:
    return make_result(tasks={"classification": classification(video={"top1": value})}, **changes)


PARTIAL = {
    "reasons": ("3 listed examples are not on this disk",),
    "num_missing": 3,
    "missing": ["x", "y", "z"],
}


# What stands where


def test_sections_by_data_set_and_split_tables_by_task(tmp_path):
    both = make_result(tasks={"retrieval": retrieval(video=40.0), "classification": classification(video={})})
    other = make_result(split="test")
    sections = saved(tmp_path, b=both, a=top1(50.0), c=other)
    assert [section.heading for section in sections] == ["Kinetics-400, test", "Kinetics-400, val"]
    assert [table.task for table in sections[1].tables] == ["classification", "retrieval"]
    assert [len(table.official) for table in sections[1].tables] == [2, 1]


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


def test_dual_softmax_is_labelled_and_never_the_best(tmp_path):
    found = retrieval(video=40.0, first_frame=30.0, dual_softmax=True)
    table = table_of(tmp_path, a=make_result(dataset="msrvtt_1ka", tasks={"retrieval": found}))
    assert [row.reading for row in table.official] == ["video", "first frame", "video, dual softmax"]
    assert table.official[-1].shown[0] == "99.0" and table.official[-1].best == set()
    assert "dual softmax of scale 14.25" in table.official[-1].protocol
    assert "dual softmax" not in table.official[0].protocol
    assert table.official[0].best == set(range(10))  # ties with the first frame but for one
    assert [each.bars[0][3] for each in table.headlines] == ["40.0", "40.0"]


# What is the best, and what may be


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
    (headline,) = table.headlines
    assert headline.bars[0][3] == "50.0"


def test_whole_but_not_official(tmp_path):
    unknown = classification(video={}) | {"num_expected": None}
    result = make_result(
        reasons=("no official number",), num_expected=None, tasks={"classification": unknown}
    )
    (row,) = table_of(tmp_path, a=result).not_official
    assert (row.badge, row.reasons, row.examples) == ("not official", ["no official number"], "1,000 of –")


def test_without_an_official_result_nothing_is_compared(tmp_path):
    page = html(tmp_path, a=top1(99.0, **PARTIAL))
    assert page.best == []
    assert "No result is official: nothing is compared with published figures." in page.text


# Published figures


def test_published_figures_stand_beside_ours(tmp_path):
    table = table_of(tmp_path, a=top1(50.0))
    figures = [each for each in published("kinetics400") if each.metric == "top1"]
    assert sorted(row.values[0] for row in table.published) == sorted(each.value for each in figures)
    row = next(row for row in table.published if row.name == "PE-core G/14")
    assert (row.reading, row.badge, row.shown[0], row.best) == ("zero-shot", "published", "76.9", set())
    assert "448 px" in row.protocol and "arXiv 2504.13181" in row.source
    (headline,) = table.headlines
    highest = max(each.value for each in figures if each.setting == "zero-shot")
    assert headline.bars[1][1:2] == ("published zero-shot",) and headline.bars[1][3] == f"{highest:.1f}"


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


# Results of different data


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
    page = html(tmp_path, a=make_result(), b=make_result(**changes))
    (warning,) = [row for row in page.rows if "Warning." in row]
    assert warning.endswith(f"Not made from the same data: {said} ")


# Pages


def test_the_rows_of_a_page(tmp_path):
    page = html(tmp_path, a=top1(71.25), b=top1(60.0, **PARTIAL))
    assert page.rows[0].split()[-8:] == ["top-1", "top-5", "mean", "of", "both", "mean", "of", "classes"]
    assert page.rows[1] == "Official results "
    assert page.rows[2].startswith("runs/a/step_10 attentional, sha256 0123456789ab video 8 1 × 1 uniform, ")
    assert page.rows[2].endswith("1,000 of 1,000 71.2 80.0 70.0 59.0 ")
    assert page.rows[3] == "Published figures, of their own protocols "
    assert " published zero-shot – – " in page.rows[4]
    assert page.rows[-2] == "Not official: not to be compared "
    assert "partial" in page.rows[-1] and "3 listed examples are not on this disk" in page.rows[-1]
    assert page.best == ["71.2", "80.0", "70.0", "59.0"]


def test_nothing_is_loaded_from_elsewhere(tmp_path):
    save_result(tmp_path / "a", {})
    Image.new("RGB", (2, 2)).save(tmp_path / "a" / "confusion.png")
    page = html(tmp_path, a=make_result())
    assert [image["src"][:22] for image in page.all("img")] == ["data:image/png;base64,"]
    assert page.all("script") == [] and [link["href"] for link in page.all("link")] == ["data:,"]
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_links_are_relative_to_the_page(tmp_path):
    save_result(tmp_path / "runs" / "a b#", make_result())
    for name in ("per_class.csv", "predictions.jsonl"):
        (tmp_path / "runs" / "a b#" / name).touch()
    sections = compare(find_results([tmp_path / "runs"])[0])
    page = tmp_path / "pages" / "report.html"
    write_comparison(page, sections, title="", passed_over=[])
    links = [link["href"] for link in Page(page.read_text(encoding="utf-8")).all("a")]
    folder = "../runs/a%20b%23"
    assert links == [f"{folder}/result.json", f"{folder}/predictions.jsonl", f"{folder}/per_class.csv"]


def test_missing_and_unreadable_examples_are_named(tmp_path):
    result = make_result(
        reasons=("gaps",),
        num_missing=7,
        missing=[f"gone{i}" for i in range(7)],
        num_failed=1,
        failed=[{"id": "-abc", "path": "x.mp4", "kind": "error", "reason": "x.mp4: broken"}],
        notes=["val.csv: 2 listed twice"],
    )
    page, text = html(tmp_path, a=result), markdown(tmp_path, a=result)
    assert "7 missing, 1 not readable gone0 missing gone1 missing" in page.text
    assert "-abc x.mp4: broken" in page.text and "val.csv: 2 listed twice" in page.text
    assert "gone4" in page.text and "gone5" not in page.text
    assert "  - 7 missing, such as gone0, gone1, gone2, gone3, gone4\n" in text
    assert (
        "  - 1 not readable, such as -abc (x.mp4: broken)\n" in text
        and "  - val.csv: 2 listed twice\n" in text
    )


EVIL = '<b>"bold"</b> & a|pipe'


def test_html_is_escaped(tmp_path):
    groups = {EVIL: 1.0}
    result = make_result(
        EVIL,
        title=EVIL,
        notes=[EVIL],
        reasons=(EVIL,),
        tasks={"captioning": captioning(video=1.0, groups=groups)},
    )
    page = html(tmp_path, a=result)
    assert page.all("b") == []
    assert page.text.count(EVIL) >= 5
    assert f"– {EVIL}" in page.text


def test_markdown_is_escaped(tmp_path):
    text = markdown(tmp_path, a=make_result("runs/a_b*c*|d\ne<b>", title="[x](y)"))
    assert r"| runs/a\_b\*c\*\|d e\<b\> (attentional, sha256 0123456789ab) | video |" in text
    assert r"## \[x\](y), val" in text


def test_markdown_tables_have_as_many_cells_in_every_row(tmp_path):
    results = {
        "a": make_result(
            "a|b", tasks={"retrieval": retrieval(video=40.0, dual_softmax=True)}, dataset="coco"
        ),
        "b": make_result(reasons=("a|b",), tasks={"captioning": captioning(video=1.0, groups={"x|y": 1.0})}),
        "c": top1(50.0),
    }
    tables = [block for block in markdown(tmp_path, **results).split("\n\n") if block.startswith("|")]
    assert len(tables) == 4
    for table in tables:
        rows = table.strip().splitlines()
        assert set(rows[1]) == set("| :-")
        assert {row.replace(r"\|", "").count("|") for row in rows} == {rows[0].count("|")}, table
    (classes,) = [table for table in tables if "top-1" in table and "examples" in table]
    assert "| **50.0** | **80.0** | **70.0** | **59.0** |" in classes
    assert "| **Not official: not to be compared** |" in "".join(tables)


@pytest.mark.parametrize("kind", ["html", "md"])
def test_the_same_results_give_the_same_page(tmp_path, kind):
    sections = saved(tmp_path, a=top1(50.0), b=make_result(tasks={"retrieval": retrieval(video=40.0)}))
    page, pages = tmp_path / f"report.{kind}", []
    for each in (sections, compare(find_results([tmp_path, tmp_path / "a"])[0])):
        write_comparison(page, each, title="A title", passed_over=["x: is old"])
        pages.append(page.read_bytes())
    assert pages[0] == pages[1] and b"x: is old" in pages[0]


def test_other_endings_are_refused_and_nothing_is_written(tmp_path):
    sections = saved(tmp_path, a=make_result())
    with pytest.raises(InputError, match=r"report\.pdf: the ending must be \.html or \.md, got '\.pdf'"):
        write_comparison(tmp_path / "report.pdf", sections, title="", passed_over=[])
    assert not (tmp_path / "report.pdf").exists()


def test_the_short_table(tmp_path):
    result = make_result(tasks={"captioning": captioning(video=1.2, first_frame=1.1)}, dataset="nocaps")
    lines = as_text(saved(tmp_path, a=result, b=result | {"official": False})).splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "Kinetics-400, val: captioning CIDEr",
        "runs/a/step_10, video 120.0",
        "runs/a/step_10, video (not official) 120.0",
        "CoCa, fine-tuned (published) 122.4",
    ]
    assert len({len(line) for line in lines}) == 1


# Finding and reading results


def test_results_are_found_below_folders_once(tmp_path):
    for name in ("b", "a/deep/er"):
        save_result(tmp_path / name, make_result())
    old = save_result(tmp_path / "old", {"benchmark": "emoji", "actions": {}})
    newer = save_result(tmp_path / "newer", make_result() | {"format": 2})
    listed = save_result(tmp_path / "list", [1])
    results, passed_over = find_results([tmp_path / "b" / "result.json", tmp_path])
    assert [result.name for result in results] == [f"{tmp_path}/b", f"{tmp_path}/a/deep/er"]
    assert passed_over == [
        f"{listed}: is not a result",
        f"{newer}: has format 2",
        f"{old}: has no format, as results of earlier versions",
    ]


@pytest.mark.parametrize(
    "content, said", [({"actions": {}}, "has no format"), ({"format": 2}, "has format 2")]
)
def test_another_format_is_refused_if_named(tmp_path, content, said):
    path = save_result(tmp_path, content)
    with pytest.raises(InputError, match=rf"result\.json: {said}.*; format 1 is needed$"):
        find_results([path])


def test_where_there_is_no_result(tmp_path):
    with pytest.raises(InputError, match="gone: no such file or folder"):
        find_results([tmp_path / "gone"])
    save_result(tmp_path / "old", {})
    with pytest.raises(InputError, match=rf"{tmp_path}: no result.json of format 1 here; passed over: 1"):
        find_results([tmp_path])


def test_broken_json_is_named(tmp_path):
    (tmp_path / "result.json").write_text('{"format": 1,')
    with pytest.raises(InputError, match=r"result\.json: cannot read this result: Expecting"):
        find_results([tmp_path])


@pytest.mark.parametrize(
    "key, said",
    [
        ("official", "has no 'official'"),
        ("model.sha256", r"has no 'model\.sha256'"),
        ("model", r"has no 'model\.checkpoint'"),
        ("tasks.classification.num_evaluated", r"has no 'tasks\.classification\.num_evaluated'"),
        ("tasks.classification.templates", r"has no 'tasks\.classification\.templates\.sets'"),
        ("tasks.classification", "tasks must be of classification, retrieval, captioning, got none"),
    ],
)
def test_missing_keys_are_named(tmp_path, key, said):
    result = make_result()
    *before, last = key.split(".")
    place = result
    for part in before:
        place = place[part]
    del place[last]
    save_result(tmp_path, result)
    with pytest.raises(InputError, match=rf"result\.json: {said}"):
        find_results([tmp_path])


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"official": "yes"}, "'official' must be bool, got 'yes'"),
        ({"num_missing": True}, "'num_missing' must be int, got True"),
        ({"num_expected": "1000"}, "'num_expected' must be int or null, got '1000'"),
        ({"tasks": []}, r"'tasks' must be dict, got \[\]"),
        ({"tasks": {"classification": 3}}, r"has no 'tasks\.classification\.num_evaluated'"),
        ({"tasks": {"dancing": {}}}, "tasks must be of classification, retrieval, captioning, got dancing"),
        ({"failed": ["x"]}, "failed must hold objects with id and reason, got 'x'"),
    ],
)
def test_values_of_another_kind_are_named(tmp_path, changes, said):
    save_result(tmp_path, make_result() | changes)
    with pytest.raises(InputError, match=rf"result\.json: {said}"):
        find_results([tmp_path])


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


def test_what_was_not_computed_is_a_dash(tmp_path):
    result = json.loads(json.dumps(top1(float("nan"))))
    del result["tasks"]["classification"]["figures"]["video"]["top5"]
    (row,) = table_of(tmp_path, a=result).official
    assert row.shown[0] == "–" and "–" in as_text(saved(tmp_path))
    assert row.best == {1, 2} and row.shown[1:] == ["70.0", "59.0"]  # there is no top-5 at all
