import importlib.util

import pytest
import torch
from datasets import refusal
from open_clip_models import tiny

from coca_video.commands.benchmark import (
    PEER,
    Comparison,
    _our_modes,
    _ours,
    _parser,
    _take_turns,
    main,
)


@pytest.mark.parametrize("option", ["--batch-size", "--num-tokens", "--num-beams", "--repeats", "--threads"])
def test_numbers_must_be_positive(option, capsys):
    assert refusal(main, "generate", option, 0, capsys=capsys) == f"{option} 0: at least 1 is needed"


@pytest.mark.skipif(importlib.util.find_spec("transformers") is not None, reason="the peer is installed")
def test_a_missing_peer_is_told(capsys):
    assert refusal(main, "generate", capsys=capsys) == PEER


def test_a_ratio_is_theirs_by_ours():
    assert Comparison("greedy", ours=2.0, theirs=9.0, num_tokens=80).ratio == 4.5


def test_both_sides_take_turns_after_a_warm_up():
    calls = []
    sides = [lambda: calls.append("ours"), lambda: calls.append("theirs")]
    assert len(_take_turns(sides, repeats=2, device=torch.device("cpu"))) == 2
    assert calls == ["ours", "theirs"] * 3


def test_every_mode_writes_as_many_tokens_as_asked():
    model = _ours(tiny(vocab_size=49408))
    arguments = _parser().parse_args(["generate", "--num-tokens", "7", "--num-beams", "3"])
    size = model.config.image.image_size
    with torch.inference_mode():
        for mode, write in _our_modes(model, torch.randn(2, 3, size, size), arguments).items():
            assert write().shape == (2, 3 if mode.startswith("beam") else 1, 8)
