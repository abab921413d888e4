import torch
from open_clip_models import tiny

from coca_video.benchmarks.generate import Comparison, our_modes
from coca_video.benchmarks.peers import converted
from coca_video.commands.benchmark import parse


def test_a_ratio_is_theirs_by_ours():
    assert Comparison("greedy", ours=2.0, theirs=9.0, num_tokens=80).ratio == 4.5


def test_every_mode_writes_as_many_tokens_as_asked():
    model = converted(tiny(vocab_size=49408))
    arguments = parse(["generate", "--num-tokens", "7", "--num-beams", "3"])
    size = model.config.image.image_size
    with torch.inference_mode():
        for mode, write in our_modes(model, torch.randn(2, 3, size, size), arguments).items():
            assert write().shape == (2, 3 if mode.startswith("beam") else 1, 8)
