import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest

from coca_video.metrics.java import java_scores

HERE = Path(__file__).parent
IS_THERE = shutil.which("java") and importlib.util.find_spec("pycocoevalcap")


@pytest.mark.skipif(not IS_THERE, reason="needs java and pycocoevalcap")
def test_meteor_equals_the_official_score():
    golden = json.loads((HERE / "golden_scores.json").read_text(encoding="utf-8"))
    candidates = [image["candidate"] for image in golden["images"]]
    references = [image["references"] for image in golden["images"]]
    scores, reasons = java_scores(candidates, references)
    assert scores["meteor"] == pytest.approx(golden["meteor"], abs=1e-9)
    assert scores.keys() | reasons.keys() == {"meteor", "spice"}


@pytest.mark.skipif(not IS_THERE, reason="needs java and pycocoevalcap")
def test_a_program_that_takes_too_long_is_ended():
    scores, reasons = java_scores(["a dog"], [["a dog"]], longest=0.1)
    assert "meteor" not in scores
    assert reasons["meteor"] == "METEOR took more than 0.1 s"


def test_without_java_the_reason_comes_back(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    reason = "java is not installed"
    assert java_scores(["a dog"], [["a dog"]]) == ({}, {"meteor": reason, "spice": reason})


@pytest.fixture
def java(monkeypatch, tmp_path):
    """A program of that name, which writes what it is told to and fails, or waits."""

    def write(script: str) -> None:
        (tmp_path / "java").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "java").chmod(0o755)

    write("exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return write


@pytest.fixture
def package(monkeypatch, tmp_path):
    """An installed pycocoevalcap whose SPICE has its models."""
    library = tmp_path / "pycocoevalcap" / "spice" / "lib"
    library.mkdir(parents=True)
    for model in ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"):
        (library / model).touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pycocoevalcap", raising=False)
    yield library
    sys.modules.pop("pycocoevalcap", None)


def test_without_the_package_the_reason_comes_back(java, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    reason = "pycocoevalcap is not installed"
    assert java_scores(["a dog"], [["a dog"]]) == ({}, {"meteor": reason, "spice": reason})


def test_without_its_models_there_is_no_spice(java, package):
    (package / "stanford-corenlp-3.6.0-models.jar").unlink()
    _, reasons = java_scores(["a dog"], [["a dog"]])
    missing = "stanford-corenlp-3.6.0-models.jar is missing in pycocoevalcap/spice/lib"
    assert reasons["spice"] == f"SPICE's models are not installed: {missing}"


def test_a_program_that_fails_is_a_reason(java, package):
    java("echo 'Error: no heap' >&2\necho more >&2\nexit 3")
    scores, reasons = java_scores(["a dog"] * 3, [["a dog"]] * 3)
    assert scores == {}
    assert reasons["meteor"] == "METEOR's java ended with 3: Error: no heap"
    assert reasons["spice"] == "SPICE's java ended with 3: Error: no heap"


def test_a_program_that_waits_is_ended(java, package):
    java("exec sleep 60")
    scores, reasons = java_scores(["a dog"], [["a dog"]], longest=0.2)
    assert scores == {}
    assert reasons == {"meteor": "METEOR took more than 0.2 s", "spice": "SPICE took more than 0.2 s"}
