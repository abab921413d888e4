import json
import math
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from checkpointing import (
    ABOUT,
    Trained,
    assert_equal,
    checks_until_a_failure,
    copied,
    dies_at_file_event,
    fail_in_the_last_process,
    files_of_at_most,
    resume_trained,
    save_trained,
)
from processes import in_processes

from coca_video.checkpoint import checkpoint_path, load_checkpoint, saved_checkpoints
from coca_video.errors import InputError
from coca_video.training.checkpoints import Checkpoints
from coca_video.training.state_folder import load_state

WEIGHTS = {"weight": torch.arange(6.0).reshape(2, 3)}


def save(checkpoints: Checkpoints, step: int, **state: Any) -> None:
    checkpoints.save(step, state={"step": step, **state}, weights=WEIGHTS, about=ABOUT)


def steps(run: Path) -> list[int]:
    return [load_state(path)["step"] for path in saved_checkpoints(run)]


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


@pytest.mark.parametrize("asynchronous", [True, False])
def test_training_goes_on_from_a_checkpoint(tmp_path, asynchronous):
    trained = Trained().train(3)
    before = copied(trained.state())
    with Checkpoints(tmp_path, keep_last=1, asynchronous=asynchronous) as checkpoints:
        assert checkpoints.newest() is None and checkpoints.resume(trained.state()) is None
        trained.save(checkpoints)
        trained.train(2)  # what is being written does not change
        checkpoints.wait()
        again = Trained().resume(checkpoints)
    assert checkpoints.newest() == checkpoint_path(tmp_path, 3)
    assert_equal(again.state(), before)
    assert_equal(again.train(2).state(), trained.state())


def test_any_number_of_processes_goes_on_from_any_other(tmp_path):
    """Shards of one, two and four processes, and of none."""
    alone, copies, shards = (tmp_path / name for name in ("alone", "copies", "shards"))
    expected = tmp_path / "expected.pt"
    save_trained(alone, False, expected, 0)
    two = [partial(save_trained, copies, False, tmp_path / "copies.pt")]
    two += [partial(save_trained, shards, True, tmp_path / "shards.pt")]
    two += [partial(resume_trained, alone, sharded, expected) for sharded in (False, True)]
    two += [partial(fail_in_the_last_process, tmp_path / "failing")]
    in_processes(tmp_path, *two)

    for run in (copies, shards):
        resume_trained(run, False, run.with_suffix(".pt"))
        weights = [path / "weights.safetensors" for path in saved_checkpoints(run) + saved_checkpoints(alone)]
        assert weights[0].stat().st_size == weights[1].stat().st_size
    four = [
        partial(resume_trained, run, sharded, run.with_suffix(".pt"))
        for run in (copies, shards)
        for sharded in (False, True)
    ]
    in_processes(tmp_path, *four, partial(save_trained, tmp_path / "four", True, expected), num_processes=4)
    resume_trained(tmp_path / "four", False, expected)


def test_its_weights_are_a_checkpoint(tmp_path):
    model = tiny.CoCa(ABOUT.config)
    state = {"model": model.state_dict()}
    with Checkpoints(tmp_path, keep_last=1) as checkpoints:
        checkpoints.save(5, state=state, weights=model.state_dict(), about=ABOUT)
    loaded = load_checkpoint(tmp_path)
    assert loaded.path == checkpoint_path(tmp_path, 5) and loaded.trained_on == ["here"]
    assert_equal(dict(loaded.model.state_dict()), dict(model.state_dict()))


def test_a_step_is_written_once(tmp_path):
    with Checkpoints(tmp_path, keep_last=1) as checkpoints:
        save(checkpoints, 5, kept=True)
        save(checkpoints, 5, kept=False)
    assert load_state(checkpoint_path(tmp_path, 5)) == {"step": 5, "kept": True}


def test_the_last_are_kept_in_the_order_of_their_numbers(tmp_path):
    with Checkpoints(tmp_path, keep_last=2) as checkpoints:
        for step in (999_999, 9_999_999, 10_000_000):
            save(checkpoints, step)
        checkpoints.wait()
        assert steps(tmp_path) == [9_999_999, 10_000_000]
        assert len(names(tmp_path)) == 2


@pytest.mark.parametrize(("best", "expected"), [("score", 3), ("-score", 4)])
def test_the_best_is_kept_beside_the_last(tmp_path, best, expected):
    scores = {1: 0.5, 2: 0.4, 3: 0.9, 4: 0.1, 5: 0.3, 6: 0.9, 7: math.nan, 8: 0.1}
    for step, score in scores.items():  # each in a process of its own
        with Checkpoints(tmp_path, keep_last=1, best=best) as checkpoints:
            save(checkpoints, step)
            checkpoints.record(step, {"score": score, "other": -score})
    assert steps(tmp_path) == [expected, 8]
    found = json.loads((tmp_path / "best.json").read_text())
    assert found == {"step": expected, "figure": best, "value": scores[expected]}


def test_figures_may_come_before_the_checkpoint(tmp_path):
    with Checkpoints(tmp_path, keep_last=1, best="score") as checkpoints:
        for step, score in ((1, 0.5), (2, 0.9), (3, 0.7)):
            checkpoints.record(step, {"score": score})
            if step != 2:
                save(checkpoints, step)
        checkpoints.wait()
        assert steps(tmp_path) == [3]
        assert json.loads((tmp_path / "best.json").read_text())["step"] == 3  # two has no checkpoint


def test_a_best_that_is_gone_counts_no_more(tmp_path):
    with Checkpoints(tmp_path, keep_last=1, best="score") as checkpoints:
        for step, score in ((1, 0.9), (2, 0.5)):
            save(checkpoints, step)
            checkpoints.record(step, {"score": score})
        checkpoints.wait()
        shutil.rmtree(checkpoint_path(tmp_path, 1))
        checkpoints.record(2, {"score": 0.5})
        save(checkpoints, 3)
        checkpoints.record(3, {"score": 0.6})
    assert json.loads((tmp_path / "best.json").read_text())["step"] == 3


def test_a_folder_that_vanishes_is_not_made_anew(tmp_path):
    run = tmp_path / "run"
    with Checkpoints(run, keep_last=1) as checkpoints:
        save(checkpoints, 1)
        checkpoints.wait()
        shutil.rmtree(run)
        save(checkpoints, 2)
        expected = r"could not be written \(No such file or directory\); there is no good checkpoint yet"
        with pytest.raises(InputError, match=f"^{checkpoint_path(run, 2)}: {expected}$"):
            checkpoints.wait()
    assert not run.exists()


def test_an_unknown_figure(tmp_path):
    with Checkpoints(tmp_path, keep_last=1, best="-loss") as checkpoints:
        with pytest.raises(InputError, match=r"^loop.best=-loss: no such figure; there are a, b$"):
            checkpoints.record(1, {"b": 1.0, "a": 2.0})


def test_a_damaged_best(tmp_path):
    (tmp_path / "best.json").write_text("{}")
    with Checkpoints(tmp_path, keep_last=1, best="loss") as checkpoints:
        save(checkpoints, 1)
        with pytest.raises(InputError, match="best.json: does not say which step is the best .*; remove it$"):
            checkpoints.wait()
    assert steps(tmp_path) == [1]


def test_a_full_disk(tmp_path):
    with Checkpoints(tmp_path, keep_last=1) as checkpoints:
        save(checkpoints, 1)
        checkpoints.wait()
        for key, size in (("state", 30_000), ("small", 1)):  # of the state's shards, of the weights
            with files_of_at_most(20_000):
                checkpoints.save(
                    2,
                    state={key: torch.zeros(size)},
                    weights={"weight": torch.zeros(30_000)},
                    about=ABOUT,
                )
                checks_until_a_failure(checkpoints, checkpoint_path(tmp_path, 2))
            checkpoints.check()  # said once
            assert names(tmp_path) == ["step-0000001"]
        save(checkpoints, 2)
    assert steps(tmp_path) == [2]


def test_the_next_save_raises_what_the_last_one_failed_of(tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    with Checkpoints(tmp_path, keep_last=1) as checkpoints:
        save(checkpoints, 1)
        path = checkpoint_path(tmp_path, 1)
        with pytest.raises(InputError) as caught:
            save(checkpoints, 2)
        assert str(caught.value).startswith(f"{path}: could not be written (")
        assert str(caught.value).endswith("; there is no good checkpoint yet")
        (tmp_path / "checkpoints").unlink()
        save(checkpoints, 2)
    assert steps(tmp_path) == [2]


def test_a_failure_in_leaving(tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(InputError, match="could not be written"):
        with Checkpoints(tmp_path, keep_last=1) as checkpoints:
            save(checkpoints, 1)
    with pytest.raises(KeyError), Checkpoints(tmp_path, keep_last=1) as checkpoints:
        save(checkpoints, 1)
        raise KeyError  # which is what is to be seen


def test_what_no_state_can_hold_is_refused_at_once(tmp_path):
    with Checkpoints(tmp_path, keep_last=1) as checkpoints:
        with pytest.raises(TypeError, match="^somewhere/0: a training state cannot hold a PosixPath"):
            save(checkpoints, 1, somewhere=[Path("/")])


def test_killed_at_any_moment(tmp_path):
    """Before, between or after any two things that a save does to the folder."""
    content = torch.arange(100)

    def save_the_second() -> None:
        with Checkpoints(tmp_path, keep_last=1) as checkpoints:
            save(checkpoints, 2, content=content)

    with Checkpoints(tmp_path, keep_last=1) as checkpoints:
        save(checkpoints, 1, content=content)
    shutil.copytree(tmp_path / "checkpoints", tmp_path / "before")
    found = []
    for moment in range(1000):
        shutil.rmtree(tmp_path / "checkpoints")
        shutil.copytree(tmp_path / "before", tmp_path / "checkpoints")
        if not dies_at_file_event(moment, save_the_second):
            break
        found.append(steps(tmp_path))
        assert torch.equal(load_state(saved_checkpoints(tmp_path)[-1])["content"], content)
        if moment % 4 == 0:  # what is left over is removed
            with Checkpoints(tmp_path, keep_last=2) as checkpoints:
                save(checkpoints, 3)
            assert names(tmp_path) == [f"step-000000{step}" for step in (*found[-1], 3)][-2:]
    assert found[0] == [1] and found[-1] == [2] and [1, 2] in found and len(found) > 20
