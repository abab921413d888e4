from argparse import Namespace

import pytest
import torch
from tiny import coca_config

from coca_video.benchmarks.measure import Measured
from coca_video.benchmarks.stream import _result, prepare


def test_frames_are_read_one_by_one():
    few, many = (prepare(coca_config(), num, torch.device("cpu")) for num in (1, 5))
    assert few() == few() != many() == many()


def test_ratios_are_those_of_the_longest_by_the_shortest():
    measured = {
        "10": Measured(seconds=2.0, above_inputs=1, peak=100, loss=0.0),
        "40": Measured(seconds=12.0, above_inputs=1, peak=101, loss=0.0),
    }
    result = _result(Namespace(model="tiny", frames=[10, 40]), measured)
    assert result.figures["ratios"] == {"peak": 1.01, "seconds_a_frame": pytest.approx(1.5)}
    assert result.last == "40 frames / 10: peak memory 1.010, time a frame 1.500"
