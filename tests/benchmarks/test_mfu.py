from functools import partial

import pytest
import tiny
import torch
from benchmark_runs import run

from coca_video.benchmarks import caption_loss
from coca_video.benchmarks.mfu import count_flops
from coca_video.losses import caption_loss as our_loss
from coca_video.models.image_encoder import ImageEncoder


def test_flops_of_an_encoder_are_those_of_its_formula():
    config = tiny.image_config()
    b, n, d, patch = 3, config.num_patches, config.width, 3 * config.patch_size**2
    layer = 4 * n * d * d + 2 * n * d * config.mlp_width + 2 * n * n * d  # attention's maps, MLP, attention
    expected = 2 * b * (n * patch * d + config.num_layers * layer)
    pixels = torch.randn(b, 3, config.image_size, config.image_size)
    assert count_flops(partial(ImageEncoder(config), pixels)) == expected


def test_flops_of_the_captioning_loss_are_one_product():
    inputs = caption_loss.random_inputs(num_tokens=37, vocab_size=211, width=12)
    assert count_flops(partial(our_loss, *inputs)) == 2 * 37 * 211 * 12


def test_shares_are_rates_by_the_ceiling():
    result = run("mfu", "--model", "tiny", "--batch-size", 1, "--repeats", 1)
    figures = result.figures
    for name in ("encoder, forward", "training step"):
        assert figures["gflops"][name] == figures["flops"][name] / figures["seconds"][name] / 1e9
    rates, shares = figures["gflops"].values(), figures["shares"].values()
    first, second = (rate / share for rate, share in zip(rates, shares))
    assert first == pytest.approx(second)
    assert figures["flops"]["training step"] > 3 * figures["flops"]["encoder, forward"]
