import inspect
import json
import re
import sys
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from coca_video.errors import InputError
from coca_video.run_log import read_evaluations, read_log
from coca_video.training.log import (
    MEASURED,
    LogConfig,
    RunLog,
    SilentLog,
    open_log,
    peak_memory_gb,
    step_figures,
    timed,
)


def write(folder: Path, steps: range, *, offset: float = 0.0, every: int = 1) -> None:
    log = RunLog(folder, LogConfig(every=every), first_step=steps.start, num_steps=10, name="run")
    for step in steps:
        log.step(step, {"loss": step + offset, "lr": 0.1}, num_samples=4)
    log.close()


def scalars(folder: Path, tag: str) -> dict[int, float]:
    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    return {event.step: event.value for event in board.Scalars(tag)}


def test_a_line_a_step(tmp_path):
    write(tmp_path / "a" / "run", range(3))
    lines = read_log(tmp_path / "a" / "run")
    assert [(line["step"], line["loss"]) for line in lines] == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert {line["lr"] for line in lines} == {0.1}
    assert all(line["samples_per_second"] > 0 for line in lines)
    assert all(line.keys() - {"step", "loss", "lr"} == MEASURED - {"mfu"} for line in lines)


def test_tensorboard_has_the_same_figures(tmp_path):
    write(tmp_path, range(3))
    assert scalars(tmp_path, "loss") == {0: 0.0, 1: 1.0, 2: 2.0}
    speed = {line["step"]: line["samples_per_second"] for line in read_log(tmp_path)}
    assert scalars(tmp_path, "samples_per_second") == pytest.approx(speed)


def test_steps_that_happen_again_are_logged_once(tmp_path):
    write(tmp_path, range(6))
    write(tmp_path, range(4, 8), offset=0.5)
    losses = {line["step"]: line["loss"] for line in read_log(tmp_path)}
    assert losses == {0: 0, 1: 1, 2: 2, 3: 3, 4: 4.5, 5: 5.5, 6: 6.5, 7: 7.5}
    assert len(read_log(tmp_path)) == 8
    assert scalars(tmp_path, "loss") == losses


def test_a_cut_off_line_is_forgotten(tmp_path):
    write(tmp_path, range(2))
    with open(tmp_path / "log.jsonl", "a") as log:
        log.write('{"step": 2, "loss": 1')
    assert [line["step"] for line in read_log(tmp_path)] == [0, 1]
    write(tmp_path, range(2, 4))
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2, 3]


def test_each_line_is_there_at_once(tmp_path):
    log = RunLog(tmp_path, first_step=0, num_steps=2, name="run")
    log.step(0, {"loss": 1.0}, num_samples=1)
    assert [line["step"] for line in read_log(tmp_path)] == [0]
    log.close()


def test_progress_is_told_from_where_the_run_starts(tmp_path, capsys):
    write(tmp_path, range(4, 6))
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"run: step 6/10 \(60%\), loss 5.000, [\d.]+ samples/s, wait 0%, ", last)


@pytest.mark.parametrize(("steps", "expected"), [(range(10), [3, 7, 9]), (range(5, 9), [7])])
def test_a_line_every_so_many_steps_and_for_the_last(tmp_path, steps, expected):
    """Counted from the run's start, wherever this part of it begins."""
    write(tmp_path, steps, every=4)
    assert [line["step"] for line in read_log(tmp_path)] == expected
    assert list(scalars(tmp_path, "loss")) == expected


def test_speed_and_mfu_are_of_all_steps_since_the_line_before(tmp_path):
    start = time.perf_counter()
    log = RunLog(tmp_path, LogConfig(every=2), first_step=0, num_steps=4, name="run", peak_flops=1e6)
    for step in range(4):
        log.step(step, {"loss": 1.0}, num_samples=step + 1, flops=100.0 * (step + 1))
    passed = time.perf_counter() - start
    log.close()
    first, last = read_log(tmp_path)
    seconds = [3 / first["samples_per_second"], 7 / last["samples_per_second"]]
    assert 0 < sum(seconds) <= passed
    assert [line["mfu"] for line in (first, last)] == pytest.approx(
        [300e-6 / seconds[0], 700e-6 / seconds[1]]
    )


@pytest.mark.parametrize(("peak_flops", "flops"), [(None, 1.0), (1.0, None)])
def test_mfu_is_absent_where_it_is_not_known(tmp_path, peak_flops, flops):
    log = RunLog(tmp_path, first_step=0, num_steps=1, name="run", peak_flops=peak_flops)
    log.step(0, {"loss": 1.0}, num_samples=1, flops=flops)
    log.close()
    assert "mfu" not in read_log(tmp_path)[0]


def test_waiting_is_a_share_of_the_time(tmp_path):
    log = RunLog(tmp_path, first_step=0, num_steps=3, name="run")
    for step, waited in enumerate((0.0, 1e-9, 1e9)):
        log.step(step, {"loss": 1.0}, num_samples=1, waited_seconds=waited)
    log.close()
    none, some, all_of_it = read_log(tmp_path)
    assert none["data_wait"] == 0 and all_of_it["data_wait"] == 1
    assert some["data_wait"] == pytest.approx(1e-9 * some["samples_per_second"])


def test_one_waits_for_each_item():
    def slow(log: list[float]):
        for item in "ab":
            start = time.perf_counter()
            time.sleep(0.01)
            log.append(time.perf_counter() - start)
            yield item

    slept: list[float] = []
    found = []
    for item, waited in timed(slow(slept)):
        start = time.perf_counter()
        time.sleep(0.02)  # not waiting
        found.append((item, waited, time.perf_counter() - start))
    assert [item for item, *_ in found] == ["a", "b"]
    assert all(waited >= least for (_, waited, _), least in zip(found, slept))


def test_evaluations_stand_between_the_steps(tmp_path, capsys):
    log = RunLog(tmp_path, first_step=0, num_steps=2, name="run")
    log.step(0, {"loss": 1.0}, num_samples=1)
    log.evaluation(0, {"top1": 0.25, "eval/pets/R@1": 0.5})
    log.step(1, {"loss": 0.5}, num_samples=1)
    log.close()
    assert read_evaluations(tmp_path) == [{"step": 0, "eval/top1": 0.25, "eval/pets/R@1": 0.5}]
    assert [line["step"] for line in read_log(tmp_path)] == [0, 1]
    assert scalars(tmp_path, "eval/pets/R@1") == {0: 0.5}
    assert "\nafter step 0: eval/top1 0.25, eval/pets/R@1 0.5\n" in capsys.readouterr().err


def test_an_evaluation_is_kept_by_a_resume_from_then(tmp_path):
    """It stands with the last step made before it: the checkpoint after step 1 begins at 2."""
    log = RunLog(tmp_path, first_step=0, num_steps=3, name="run")
    for step in range(3):
        log.step(step, {"loss": 1.0}, num_samples=1)
        log.evaluation(step, {"top1": step / 4})
    log.close()
    write(tmp_path, range(2, 3))
    assert [line["eval/top1"] for line in read_evaluations(tmp_path)] == [0, 0.25]
    assert len(read_log(tmp_path)) == 3
    assert scalars(tmp_path, "eval/top1") == {0: 0, 1: 0.25}


@pytest.mark.parametrize("kind", ["evaluation", "restart_clock"])
def test_what_happens_between_steps_is_not_the_next_ones(tmp_path, kind):
    log = RunLog(tmp_path, first_step=0, num_steps=2, name="run")
    log.step(0, {"loss": 1.0}, num_samples=1)
    time.sleep(0.05)
    start = time.perf_counter()
    log.evaluation(0, {"top1": 0.5}) if kind == "evaluation" else log.restart_clock()
    log.step(1, {"loss": 1.0}, num_samples=1)
    passed = time.perf_counter() - start
    log.close()
    assert 1 / read_log(tmp_path)[1]["samples_per_second"] <= passed


def test_a_skipped_step_has_no_line(tmp_path, capsys):
    log = RunLog(tmp_path, first_step=0, num_steps=3, name="run")
    log.step(0, {"loss": 1.0}, num_samples=1)
    log.skipped(1, "not finite")
    log.step(2, {"loss": 1.0}, num_samples=1)
    log.close()
    assert [line["step"] for line in read_log(tmp_path)] == [0, 2]
    found = capsys.readouterr().err
    assert "\nstep 1 skipped: not finite\n" in found and "run: step 3/3" in found


def test_figures_of_a_step():
    losses = {"loss": 3.0, "caption": 2.0, "scale": 20.0}
    found = step_figures(losses, gradient_norm=0.5, rates={"image_encoder": 1e-3, "heads": 1e-2})
    rates = {"lr": 1e-2, "lr/image_encoder": 1e-3, "lr/heads": 1e-2}
    assert found == {**losses, "temperature": 0.05, "gradient_norm": 0.5, **rates}
    assert "temperature" not in step_figures({"loss": 1.0}, gradient_norm=0.5, rates={"heads": 1.0})


def test_memory_is_in_gigabytes(tmp_path):
    assert 0.05 < peak_memory_gb(torch.device("cpu")) < 100  # torch alone is more than 50 MB


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_memory_of_a_gpu_is_its_peak():
    device = torch.device("cuda")
    torch.cuda.reset_peak_memory_stats(device)
    torch.empty(300_000_000, dtype=torch.uint8, device=device)  # freed at once
    assert 0.3 <= peak_memory_gb(device) < torch.cuda.mem_get_info(device)[1] / 1e9


def test_the_other_processes_log_nothing(tmp_path, capsys):
    log = SilentLog()
    log.step(0, {"loss": 1.0}, num_samples=1, waited_seconds=0.5, flops=1.0)
    log.skipped(1, "not finite")
    log.evaluation(1, {"top1": 0.5})
    log.restart_clock()
    log.note("a note")
    log.close()
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr().err == ""


def test_the_first_process_logs(tmp_path):
    log = open_log(tmp_path, LogConfig(), first_step=0, num_steps=2, name="run")
    log.step(0, {"loss": 1.0}, num_samples=1)
    log.close()
    assert len(read_log(tmp_path)) == 1


def test_a_silent_log_may_stand_for_any():
    for name, method in inspect.getmembers(RunLog, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.signature(getattr(SilentLog, name)) == inspect.signature(method), name


def test_wandb_is_asked_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match="wandb_project=coca"):
        RunLog(tmp_path, LogConfig(wandb_project="coca"), first_step=0, num_steps=1, name="run")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({"every": 0}, "every must be at least 1, got 0"), ({"wandb_project": ""}, "wandb_project must have")],
)
def test_settings_that_make_no_sense(changes, expected):
    with pytest.raises(ValueError, match=expected):
        LogConfig(**changes)
