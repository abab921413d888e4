import json
import math
from pathlib import Path

import pytest

from coca_video.errors import InputError
from coca_video.run_log import drop_steps_from, read_steps
from coca_video.training.watch import BAD_STEPS_NAME, OnTrouble, Watch, WatchConfig

SPIKES = WatchConfig(on_trouble=OnTrouble.skip, spike_factor=3, window=20, max_skipped=2)


def figures(loss: float, gradient_norm: float = 1.0) -> dict[str, float]:
    return {"loss": loss, "gradient_norm": gradient_norm}


def settled(config: WatchConfig = SPIKES, *, num_steps: int = 20, loss: float = 2.0) -> Watch:
    watch = Watch(config)
    assert [watch.judge(figures(loss)) for _ in range(num_steps)] == [None] * num_steps
    return watch


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["loss", "gradient_norm"])
def test_what_is_not_finite_is_refused(name, value):
    assert Watch(WatchConfig()).judge(figures(1.0) | {name: value}) == "not finite"


def test_spikes_are_refused():
    watch = settled()
    assert watch.judge(figures(6.0, 3.0)) is None  # just within
    assert watch.judge(figures(6.1)) == "loss above 3 times the median of 20 steps, 2,"
    assert watch.judge(figures(2.0, 3.1)) == "gradient norm above 3 times the median of 20 steps, 1,"


def test_spikes_need_twenty_steps_to_be_known():
    assert settled(num_steps=19).judge(figures(1e9, 1e9)) is None
    assert settled(num_steps=20).judge(figures(1e9, 1e9)) is not None


def test_without_a_factor_nothing_finite_is_refused():
    assert settled(WatchConfig()).judge(figures(1e30, 1e30)) is None


def test_a_level_of_zero_has_no_multiples():
    watch = Watch(SPIKES)
    for _ in range(20):
        assert watch.judge(figures(2.0, 0.0)) is None
    assert watch.judge(figures(2.0, 1e-3)) is None


def test_the_level_is_that_of_the_last_accepted_steps():
    watch = settled(loss=2.0)
    for _ in range(9):
        assert watch.judge(figures(5.0)) is None
        assert watch.judge(figures(100.0)) is not None  # not counted, else the median would rise
    assert watch.judge(figures(6.1)) is not None
    for _ in range(2):
        assert watch.judge(figures(5.0)) is None
    assert watch.judge(figures(15.0)) is None  # 5 is the median now


def test_levels_are_forgotten_where_they_change():
    watch = settled()
    watch.forget_levels()
    assert watch.judge(figures(100.0)) is None


def test_a_run_that_stops_says_where_its_samples_are(tmp_path):
    watch = Watch(WatchConfig())
    expected = (
        rf"{tmp_path}: not finite at step 7: loss nan, gradient norm 1\.5; the last checkpoint is kept; "
        rf"try a lower loop\.optimizer\.lr; samples: {tmp_path}/bad_steps\.jsonl$"
    )
    with pytest.raises(InputError, match=expected):
        watch.report(tmp_path, 7, "not finite", figures(math.nan, 1.5), ["a", "b"])
    (line,) = read_steps(tmp_path / BAD_STEPS_NAME)
    assert line == {
        "step": 7,
        "reason": "not finite",
        "loss": "nan",
        "gradient_norm": 1.5,
        "keys": ["a", "b"],
    }


def test_a_line_is_json_that_any_reader_takes(tmp_path):
    Watch(SPIKES).report(tmp_path, 0, "not finite", figures(math.inf, math.nan), ["é"])

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads((tmp_path / BAD_STEPS_NAME).read_text(), parse_constant=refuse)


def skip(watch: Watch, folder: Path, step: int) -> None:
    bad = figures(math.nan)
    reason = watch.judge(bad)
    assert reason is not None
    watch.report(folder, step, reason, bad, ["a"])


def test_skipped_steps_are_counted_and_written_down(tmp_path):
    watch = settled()
    skip(watch, tmp_path, 20)
    skip(watch, tmp_path, 21)
    assert watch.judge(figures(2.0)) is None  # in a row means in a row
    skip(watch, tmp_path, 23)
    skip(watch, tmp_path, 24)
    assert watch.num_skipped == 4
    with pytest.raises(InputError, match="not finite at step 25.*2 steps before it were skipped too$"):
        skip(watch, tmp_path, 25)
    assert [line["step"] for line in read_steps(tmp_path / BAD_STEPS_NAME)] == [20, 21, 23, 24, 25]


def test_a_resumed_watch_judges_as_an_unbroken_one(tmp_path):
    """Its state as a checkpoint would keep it; the lists do not change with the watch."""
    unbroken = settled(loss=0.1 + 0.2)
    skip(unbroken, tmp_path, 20)
    state = unbroken.state_dict()
    kept = json.loads(json.dumps(state))
    resumed = settled(num_steps=30, loss=50.0)
    resumed.load_state_dict(kept)
    assert resumed.state_dict() == state == kept
    for watch in (unbroken, resumed):
        assert watch.judge(figures(0.91)) == "loss above 3 times the median of 20 steps, 0.3,"
        skip(watch, tmp_path, 21)
        assert watch.num_skipped == 2
        with pytest.raises(InputError):
            skip(watch, tmp_path, 22)
        assert watch.judge(figures(0.3)) is None
    assert state == kept != unbroken.state_dict() == resumed.state_dict()


def test_bad_steps_that_happen_again_are_dropped(tmp_path):
    watch = settled()
    skip(watch, tmp_path, 3)
    skip(watch, tmp_path, 5)
    drop_steps_from(tmp_path / BAD_STEPS_NAME, 5)
    assert [line["step"] for line in read_steps(tmp_path / BAD_STEPS_NAME)] == [3]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"spike_factor": 1}, "spike_factor must be above 1, or 0 for none, got 1"),
        ({"spike_factor": -2}, "spike_factor must be above 1, or 0 for none, got -2"),
        ({"spike_factor": math.nan}, "spike_factor must be above 1, or 0 for none, got nan"),
        ({"window": 19}, "window must be at least 20, got 19"),
        ({"max_skipped": 0}, "max_skipped must be at least 1, got 0"),
    ],
)
def test_settings_that_make_no_sense(changes, expected):
    with pytest.raises(ValueError, match=expected):
        WatchConfig(**changes)
