from functools import partial

import sides
import torch

from coca_video.benchmarks.measure import Measured, compare_processes, take_turns
from coca_video.benchmarks.pair import Pair

CPU = torch.device("cpu")


def test_both_sides_take_turns_after_a_warm_up():
    calls = []
    both = [lambda: calls.append("ours"), lambda: calls.append("theirs")]
    assert len(take_turns(both, repeats=2, device=CPU)) == 2
    assert calls == ["ours", "theirs"] * 3


def test_each_side_has_its_own_memory_and_loss():
    both = {
        "small": partial(sides.holding, 20, inputs_mib=100),
        "large": partial(sides.holding, 80, inputs_mib=1),
    }
    measured = compare_processes(both, repeats=2, device=CPU)
    for name, mib in (("small", 20), ("large", 80)):
        side = measured[name]
        assert side.loss == 3.0 and side.seconds > 0
        assert abs(side.above_inputs - mib * sides.MIB) < 10 * sides.MIB
        assert side.peak > side.above_inputs + 100 * sides.MIB  # the interpreter and torch
    assert measured["small"].peak > measured["large"].peak  # its inputs are the larger ones


def test_ratios():
    ours = Measured(seconds=2.0, above_inputs=10, peak=30, loss=1.5)
    theirs = Measured(seconds=5.0, above_inputs=40, peak=60, loss=1.25)
    pair = Pair(ours, theirs, peer="plain")
    assert (pair.speed_ratio, pair.peak_ratio, pair.above_inputs_ratio) == (2.5, 0.5, 0.25)
    figures = pair.figures()
    assert figures["loss_difference"] == 0.25 and figures["theirs"]["peak"] == 60
    assert [row[0] for row in pair.rows()] == ["", "ours", "plain"]
