from datasets import call, refusal
from results import captioning, make_result, retrieval, save_result

from coca_video.commands.report import main


def test_a_page_is_written_and_a_table_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_result(tmp_path / "runs" / "a", make_result())
    save_result(tmp_path / "runs" / "b", make_result(tasks={"captioning": captioning(video=1.0)}))
    save_result(tmp_path / "runs" / "demo", {"actions": {}})
    assert not call(main, "runs")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["Kinetics-400,", "val:", "classification", "top-1"]
    assert printed[-2] == "passed over: runs/demo/result.json: has no format, as results of earlier versions"
    assert printed[-1] == "written: report.html"
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<title>Results</title>" in page and 'href="runs/a/result.json"' in page


def test_output_and_title(tmp_path, capsys):
    files = [save_result(tmp_path / name, make_result(name)) for name in ("a", "b")]
    output = tmp_path / "pages" / "all.md"
    call(main, *files, "--output", output, "--title", "My models")
    text = output.read_text(encoding="utf-8")
    assert text.startswith("# My models\n") and "](../a/result.json)" in text
    assert f"written: {output}" in capsys.readouterr().out


def test_what_is_refused(tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    refused = refusal(main, empty, capsys=capsys)
    assert refused == f"{empty}: no result.json of format 1 here; passed over: 0"
    file = save_result(tmp_path, {"tasks": {"retrieval": retrieval(video=1.0)}})
    refused = refusal(main, file, capsys=capsys)
    assert refused == f"{file}: has no format, as results of earlier versions; format 1 is needed"
    save_result(tmp_path, make_result())
    output = tmp_path / "page.txt"
    assert refusal(main, file, "--output", output, capsys=capsys).startswith(f"{output}: the ending must be ")
    assert not output.exists()
