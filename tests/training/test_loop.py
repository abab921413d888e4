import signal
from pathlib import Path

import pytest
import torch
from runs import Interrupted, assert_same, assert_same_runs, checkpoint, figures, run

from coca_video.checkpoint import load_checkpoint, saved_checkpoints, step_of
from coca_video.data.tokenizer import Tokenizer
from coca_video.run_log import read_evaluations, read_log
from coca_video.training.loop import LoopConfig
from coca_video.training.signals import Ending
from coca_video.training.state_folder import load_state


@pytest.fixture(scope="module")
def unbroken(emoji_root, tmp_path_factory) -> Path:
    """Eight steps in one go."""
    output = tmp_path_factory.mktemp("runs") / "unbroken"
    assert run(emoji_root, output)[1] is Ending.finished
    return output


def test_the_run_is_logged_and_saved(unbroken):
    assert [line["step"] for line in read_log(unbroken)] == list(range(8))
    assert {"loss", "caption", "contrastive", "scale", "gradient_norm", "lr"} <= read_log(unbroken)[0].keys()
    assert saved_checkpoints(unbroken) == [checkpoint(unbroken, 4), checkpoint(unbroken, 8)]
    assert load_checkpoint(unbroken).trained_on == ["here"]
    rates = [line["lr"] for line in read_log(unbroken)]
    assert rates[:3] == [0.005, 0.01, 0.01] and rates == sorted(rates[:2]) + sorted(rates[2:], reverse=True)


def test_a_stopped_and_resumed_run_equals_an_unbroken_one(emoji_root, tmp_path, unbroken):
    class StopsAtFour(Interrupted):
        at = 3  # the step of that batch is still made

    state, ending = run(emoji_root, tmp_path, stream=StopsAtFour)
    assert ending is Ending.interrupted and state.step == 4
    assert saved_checkpoints(tmp_path) == [checkpoint(tmp_path, 4)]
    state, ending = run(emoji_root, tmp_path)
    assert ending is Ending.finished and state.step == 8
    assert_same_runs(tmp_path, unbroken)


def test_steps_after_the_last_checkpoint_are_made_again(emoji_root, tmp_path, unbroken):
    """As after a crash: the log is ahead of the checkpoint, and its last line is cut off."""

    class Crashes(Interrupted):
        at, times = 6, 2

    with pytest.raises(KeyboardInterrupt):
        run(emoji_root, tmp_path, stream=Crashes)
    assert [line["step"] for line in read_log(tmp_path)] == list(range(6))
    with open(tmp_path / "log.jsonl", "a") as log:
        log.write('{"step": 6, "lo')
    assert saved_checkpoints(tmp_path) == [checkpoint(tmp_path, 4)]
    assert run(emoji_root, tmp_path)[1] is Ending.finished
    assert_same_runs(tmp_path, unbroken)


TWO_PHASES = [
    "loop.tuning={regime: poolers_then_full, first_share: 0.4}",
    "loop.optimizer.groups.image_encoder={lr: 1e-3, weight_decay: 0.1}",
    "loop.num_steps=5",
    "model.image.stem=conv",
    "loop.keep_last=5",
    "loop.save_every=1",
]


@pytest.fixture(scope="module")
def unbroken_two_phases(emoji_root, tmp_path_factory) -> Path:
    """Poolers for steps 0 and 1, everything for 2 to 4."""
    output = tmp_path_factory.mktemp("runs") / "phases"
    assert run(emoji_root, output, *TWO_PHASES)[1] is Ending.finished
    return output


def test_each_phase_has_its_schedule(unbroken_two_phases):
    """Two steps of warm-up to 0.01, then down; the log's rate is the largest group's."""
    rates = [line["lr"] for line in read_log(unbroken_two_phases)]
    assert rates == pytest.approx([0.005, 0.01, 0.005, 0.01, 0.01])


def test_what_is_frozen_first_moves_later(unbroken_two_phases):
    """The statistics of its batch norms as well."""
    paths = [checkpoint(unbroken_two_phases, step) for step in (1, 2, 3)]
    first, last, after = (load_checkpoint(path).model.image_encoder.state_dict() for path in paths)
    assert_same(first, last)
    assert all(not torch.equal(after[name], value) for name, value in last.items())


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_run_of_two_phases_resumes_anywhere(emoji_root, tmp_path, unbroken_two_phases, at):
    """In the first, at the switch, and in the second."""
    state, ending = run(
        emoji_root, tmp_path, *TWO_PHASES, stream=type("Stops", (Interrupted,), {"at": at - 1})
    )
    assert ending is Ending.interrupted and state.step == at
    assert run(emoji_root, tmp_path, *TWO_PHASES)[1] is Ending.finished
    assert_same_runs(tmp_path, unbroken_two_phases)


@pytest.mark.parametrize(
    ("weights", "figure"), [("{contrastive_weight: 0}", "caption"), ("{caption_weight: 0}", "contrastive")]
)
def test_a_run_with_one_loss_logs_one(emoji_root, tmp_path, weights, figure):
    run(emoji_root, tmp_path, f"loop.loss={weights}", "loop.num_steps=2")
    lines = read_log(tmp_path)
    assert len(lines) == 2
    assert all({"caption", "contrastive"} & line.keys() == {figure} for line in lines)


def test_workers_change_nothing(emoji_root, tmp_path, unbroken):
    assert run(emoji_root, tmp_path, num_workers=1)[1] is Ending.finished
    assert_same_runs(tmp_path, unbroken)


def test_another_seed_is_another_run(emoji_root, tmp_path, unbroken):
    run(emoji_root, tmp_path, "loop.seed=1", "loop.num_steps=1")
    assert figures(tmp_path)[0]["loss"] != figures(unbroken)[0]["loss"]


def test_dropout_and_augmentation_are_at_work(emoji_root, tmp_path, unbroken):
    """The runs above do not agree for want of chance: without it the first loss is another one."""
    for name, change in {
        "augmentation": "loop.augmentation={degrees: 0, min_scale: 1, max_scale: 1, shift: 0, color: 0}",
        "dropout": "model.image.dropout=0",
    }.items():
        run(emoji_root, tmp_path / name, change)
        assert figures(tmp_path / name)[0]["loss"] != figures(unbroken)[0]["loss"], name


def test_patch_dropout_is_at_work(emoji_root, tmp_path, unbroken):
    run(emoji_root, tmp_path, "loop.patch_dropout=0.5")
    assert figures(tmp_path)[0]["loss"] != figures(unbroken)[0]["loss"]


@pytest.mark.parametrize("change", ["micro_batch_size=2", "recompute=true"])
def test_what_saves_memory_changes_no_more_than_roundings(emoji_root, tmp_path, change):
    """Without dropout, which micro-batches draw in another order."""
    losses = []
    for name, changes in {"plain": [], "lean": [f"loop.compute.{change}"]}.items():
        run(emoji_root, tmp_path / name, "model.image.dropout=0", "model.text.dropout=0", *changes)
        losses.append([line["loss"] for line in figures(tmp_path / name)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize(
    ("number", "meaning"),
    [
        (signal.SIGINT, Ending.interrupted),
        (signal.SIGTERM, Ending.preempted),
        (signal.SIGUSR1, Ending.preempted),
    ],
)
def test_a_signal_ends_the_step_and_saves(emoji_root, tmp_path, number, meaning):
    before = signal.getsignal(number)
    state, ending = run(emoji_root, tmp_path, stream=type("Signalled", (Interrupted,), {"number": number}))
    assert ending is meaning and state.step == 3
    assert saved_checkpoints(tmp_path) == [checkpoint(tmp_path, 3)]
    assert [line["step"] for line in read_log(tmp_path)] == [0, 1, 2]
    assert signal.getsignal(number) is before


def test_a_second_signal_interrupts_at_once(emoji_root, tmp_path):
    class Twice(Interrupted):
        times = 2

    with pytest.raises(KeyboardInterrupt):
        run(emoji_root, tmp_path, stream=Twice)
    assert saved_checkpoints(tmp_path) == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_finished_run_is_left_alone(emoji_root, tmp_path, unbroken):
    run(emoji_root, tmp_path)
    files = {path: path.read_bytes() for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()}
    log = (tmp_path / "log.jsonl").read_text()
    assert run(emoji_root, tmp_path)[1] is Ending.finished
    assert {path: path.read_bytes() for path in files} == files
    assert (tmp_path / "log.jsonl").read_text() == log


def test_the_last_checkpoints_are_kept(emoji_root, tmp_path):
    run(emoji_root, tmp_path, "loop.save_every=2", "loop.keep_last=3")
    assert saved_checkpoints(tmp_path) == [checkpoint(tmp_path, step) for step in (4, 6, 8)]


def test_checkpoints_carry_the_average(emoji_root, tmp_path):
    """After the first step the weights themselves, then the decayed mean of each step's."""
    run(emoji_root, tmp_path, "loop.save_every=1", "loop.keep_last=8", "loop.num_steps=4")
    name = "heads.log_scale"
    expected = None
    for step in range(1, 5):
        raw = load_state(checkpoint(tmp_path, step))["model"][name]
        expected = raw if expected is None else 0.5 * expected + 0.5 * raw
        saved = load_checkpoint(checkpoint(tmp_path, step)).model.state_dict()[name]
        torch.testing.assert_close(saved, expected)
    assert not torch.equal(saved, raw)


@pytest.mark.parametrize("name", ["num_steps", "save_every", "keep_last"])
@pytest.mark.parametrize("value", [0, -1])
def test_counts_are_at_least_one(name, value):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got {value}"):
        LoopConfig(**{name: value})


def test_a_stop_comes_before_an_evaluation_which_is_made_up_for(emoji_root, tmp_path):
    evaluated: list[int] = []

    def evaluate(path: Path) -> dict[str, float]:
        evaluated.append(step_of(path))
        return {"number": len(evaluated)}

    changes = ["loop.num_steps=4", "loop.evaluate_every=2"]
    stops = type("Stops", (Interrupted,), {"at": 1})
    assert run(emoji_root, tmp_path, *changes, stream=stops, evaluate=evaluate)[1] is Ending.interrupted
    assert evaluated == []
    for _ in range(2):
        assert run(emoji_root, tmp_path, *changes, evaluate=evaluate)[1] is Ending.finished
        assert evaluated == [2, 4]
        lines = [{"step": 1, "eval/number": 1}, {"step": 3, "eval/number": 2}]
        assert read_evaluations(tmp_path) == lines


def test_a_signal_while_the_last_checkpoint_is_written(emoji_root, tmp_path, monkeypatch):
    """There is nothing left to stop."""
    to_json = Tokenizer.to_json

    def signalled(tokenizer: Tokenizer) -> str:
        signal.raise_signal(signal.SIGINT)
        return to_json(tokenizer)

    monkeypatch.setattr(Tokenizer, "to_json", signalled)
    assert run(emoji_root, tmp_path, "loop.num_steps=1")[1] is Ending.finished
    assert saved_checkpoints(tmp_path) == [checkpoint(tmp_path, 1)]
