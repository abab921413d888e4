import sys
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from coca_video.errors import InputError
from coca_video.training.trackers import TensorBoard, Wandb, WandbMode


def scalars(folder: Path, tag: str) -> dict[int, float]:
    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    return {event.step: event.value for event in board.Scalars(tag)}


def test_tensorboard_forgets_steps_that_happen_again(tmp_path):
    for steps, value in ((range(4), 1.0), (range(2, 5), 2.0)):
        board = TensorBoard(tmp_path, first_step=steps.start)
        for step in steps:
            board.write(step, {"loss": value, "eval/top1": 0.5})
        board.close()
    assert scalars(tmp_path, "loss") == {0: 1, 1: 1, 2: 2, 3: 2, 4: 2}
    assert set(scalars(tmp_path, "eval/top1")) == set(range(5))


@pytest.fixture
def wandb_at_home(tmp_path, monkeypatch) -> None:
    """Nothing of its own outside the test's folder, and nothing sent."""
    pytest.importorskip("wandb")
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_MODE", "offline")


def test_a_resumed_run_is_the_same_at_wandb(tmp_path, wandb_at_home):
    run = tmp_path / "run"
    run.mkdir()
    ids = []
    for mode in (WandbMode.offline, None):  # None: what the variable says
        wandb = Wandb(run, project="coca", mode=mode, name="runs/x", settings={"loop": {"seed": 7654321}})
        wandb.write(3, {"loss": 1.53125, "eval/top1": 0.25})
        wandb.close()
        ids.append((run / "wandb_id").read_text().strip())
    assert ids[0] == ids[1] != ""
    files = list(run.glob(f"wandb/offline-run-*/run-{ids[0]}.wandb"))
    assert len(files) == 2
    for path in files:
        wait_for(path, b"loss", b"1.53125", b"eval/top1", b"7654321", b"step")


def wait_for(path: Path, *written: bytes, seconds: float = 20) -> None:
    """The package's own process writes its file, and is not done when a run is."""
    deadline = time.monotonic() + seconds
    while missing := [part for part in written if part not in path.read_bytes()]:
        assert time.monotonic() < deadline, missing
        time.sleep(0.02)


def test_what_wandb_refuses_is_one_line(tmp_path, wandb_at_home):
    with pytest.raises(InputError, match=r"loop\.log\.wandb_project=a/b: Invalid project name") as caught:
        Wandb(tmp_path, project="a/b", mode=WandbMode.offline, name="x", settings=None)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"wandb_project=coca .* pip install coca-video\[wandb\]"):
        Wandb(tmp_path, project="coca", mode=None, name="x", settings=None)


def test_a_folder_called_wandb_is_not_the_package(tmp_path, monkeypatch):
    """Python imports any folder that it finds; the package leaves one of that name behind."""
    (tmp_path / "wandb").mkdir()
    for name in [name for name in sys.modules if name.partition(".")[0] == "wandb"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(InputError, match="not installed"):
        Wandb(tmp_path, project="coca", mode=None, name="x", settings=None)
