import pickle

import pytest
import torch
from benchmark_runs import tiny_settings

from coca_video.benchmarks.measure import Measured
from coca_video.benchmarks.pair import Pair
from coca_video.benchmarks.train_step import CAPTION_LENGTHS, both_sides, make_batch, report
from coca_video.models.coca import CoCaConfig


def test_captions_are_as_long_as_those_of_coco():
    assert 12 <= sum(CAPTION_LENGTHS) / len(CAPTION_LENGTHS) <= 13 and max(CAPTION_LENGTHS) == 26
    batch, frames = make_batch(CoCaConfig(), batch_size=20, device=torch.device("cpu"))
    assert batch.text_mask.sum(dim=1).tolist() == CAPTION_LENGTHS + CAPTION_LENGTHS[:4]
    assert torch.equal(batch.ids != 0, batch.text_mask) and batch.ids.shape == (20, 26)
    assert frames.shape == (20, 1, 3, 288, 288) and frames.dtype == torch.float32


def test_both_sides_take_the_same_step(tmp_path):
    settings = str(tiny_settings(tmp_path))
    sides = both_sides(settings, tmp_path, batch_size=3, device=torch.device("cpu"))
    steps = {name: pickle.loads(pickle.dumps(side))() for name, side in sides.items()}  # as another process
    losses = {name: step() for name, step in steps.items()}
    assert losses["ours"] == pytest.approx(losses["theirs"], rel=1e-5)
    assert losses == {name: step() for name, step in steps.items()}  # no weight has changed


def test_the_report_has_both_rates_and_ratios():
    ours = Measured(seconds=2.0, above_inputs=10**9, peak=3 * 10**9, loss=9.5)
    theirs = Measured(seconds=5.0, above_inputs=2 * 10**9, peak=4 * 10**9, loss=9.5)
    result = report(Pair(ours, theirs, peer="open_clip"), model="coca_ViT-B-32", batch_size=16)
    assert result.figures["samples_per_second"] == {"ours": 8.0, "theirs": 3.2}
    assert result.rows[1] == ["ours", "2.000s", "3.00 GB", "1.00 GB", "9.50000", "8.00"]
    assert result.last == "ours / open_clip's: samples a second 2.50, peak memory 0.75"
