"""Pages are read back as a reader would: the words of each row of each table."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from results import PARTIAL, captioning, make_result, retrieval, save_result, saved, top1

from coca_video.errors import InputError
from coca_video.evaluation.comparison import compare
from coca_video.evaluation.comparison_page import as_text, write_comparison
from coca_video.evaluation.published import published
from coca_video.evaluation.results import find_results

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


def html(folder: Path, **results: dict) -> Page:
    sections = saved(folder, **results)
    write_comparison(folder / "report.html", sections, title="A title", passed_over=[])
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def markdown(folder: Path, **results: dict) -> str:
    sections = saved(folder, **results)
    write_comparison(folder / "report.md", sections, title="A title", passed_over=[])
    return (folder / "report.md").read_text(encoding="utf-8")


def test_the_rows_of_a_page(tmp_path):
    page = html(tmp_path, a=top1(71.25), b=top1(60.0, **PARTIAL))
    columns = "top-1 top-5 mean of both mean of classes"
    assert page.rows[0] == f"model reading or setting {columns} frames views examples protocol "
    assert page.rows[1] == "Official results "
    assert page.rows[2].startswith(
        "runs/a/step_10 attentional, sha256 0123456789ab video 71.2 80.0 70.0 59.0 "
    )
    assert " 59.0 8 1 × 1 1,000 of 1,000 uniform, " in page.rows[2] and page.rows[2].endswith(" 400 classes ")
    assert page.rows[3] == "Published figures, of their own protocols "
    first = next(each for each in published("kinetics400") if each.setting == "zero-shot")
    assert page.rows[4].startswith(f"{first.model} published zero-shot {first.value} – – – – – – ")
    assert page.rows[-2] == "Not official: not to be compared "
    assert "partial" in page.rows[-1] and "3 listed examples are not on this disk" in page.rows[-1]
    assert page.best == ["71.2", "80.0", "70.0", "59.0"]


def test_without_an_official_result_nothing_is_compared(tmp_path):
    page = html(tmp_path, a=top1(99.0, **PARTIAL))
    assert page.best == []
    assert "No result is official: nothing is compared with published figures." in page.text


def test_warnings_stand_above_the_rows(tmp_path):
    page = html(tmp_path, a=make_result(), b=make_result(num_expected=990))
    said = f"num_expected is 1,000 in {tmp_path}/a, 990 in {tmp_path}/b."
    assert page.rows[1:3] == [f"Warning. Not made from the same data: {said} ", "Official results "]


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


def test_settings_without_a_value_are_not_listed(tmp_path):
    named = make_result()
    named["protocol"]["name"] = "of the paper"
    assert " name of the paper reading video " in html(tmp_path, a=named).text
    assert " adaptor attentional reading video " in html(tmp_path, a=make_result()).text


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
