import json

import pytest
from datasets import TINY_MODEL, call, refusal

from coca_video.cli import PARTIAL
from coca_video.commands.plan import main

TINY = ["recipe=emoji/image", *TINY_MODEL, "loop.num_steps=10"]
GONE = "data.sources=[{kind: pictures, path: /not/here, batch_size: 64}]"


def figures(capsys, *arguments: object) -> dict:
    call(main, *TINY, GONE, *arguments, "--json")
    return json.loads(capsys.readouterr().out)


def test_a_recipe_whose_data_are_not_here(capsys):
    assert call(main, *TINY, GONE, "devices=4", "price_per_hour=2.5", "text_length=8") == 0
    first, second, *_, last = capsys.readouterr().out.splitlines()
    assert " parameters: image_encoder " in first
    assert second.startswith(
        "10 steps of 64 clips, 64 frames of 16 px, texts of 8 tokens, at most 16; trained: "
    )
    assert last.startswith("settings: loop.parallel.sharing=ddp loop.compute.micro_batch_size=0 ")


def test_settings_of_the_recipe_count(capsys):
    plain = figures(capsys, "devices=2")["choices"][0]
    longer = figures(capsys, "devices=2", "loop.num_steps=20")["choices"][0]
    slower = figures(capsys, "devices=2", "device=v100", "utilisation=0.2")["choices"][0]
    assert longer["flops"] == 2 * plain["flops"] and slower["hours"] > plain["hours"]
    frozen = figures(capsys, "devices=2", "loop.tuning.regime=lit")["choices"][0]
    assert frozen["flops"] < plain["flops"] and frozen["memory_bytes"] < plain["memory_bytes"]


def test_samples_in_place_of_steps(capsys):
    assert figures(capsys, "loop.num_samples=640") == figures(capsys)


def test_sources_that_take_turns(capsys):
    two = "data.sources=[{kind: pictures, path: a, batch_size: 64, weight: 3},"
    two += " {kind: clips, path: b, batch_size: 8, num_frames: 4}]"
    assert call(main, *TINY, two, "data.mixing=alternating", "loop.num_steps=100") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("75 steps of 64 clips, 64 frames")
    assert lines[2].startswith("25 steps of 8 clips, 32 frames")


def test_too_little_memory(capsys):
    assert call(main, *TINY, GONE, "memory=0.0001") == PARTIAL
    assert "nothing fits: one row at a time needs " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("devices=0", "devices=0: must be positive"),
        ("devices=2.5", "devices=2.5: a whole number is needed"),
        ("memory=-1", "memory=-1: must be positive"),
        ("memory=much", "memory=much: a number is needed"),
        ("utilisation=1.5", "utilisation=1.5: a share is needed, above 0 and at most 1"),
        ("reserve=1", "reserve=1: a share is needed, at least 0 and below 1"),
        ("price_per_hour=0", "price_per_hour=0: must be positive"),
        ("text_length=17", "text_length=17: from 2 to the model's context of 16 tokens"),
        ("device=p100", "device=p100: not in the table; the choices are gb200, "),
        ("recipe=nothing", "recipe=nothing: there is no such recipe; the choices are emoji/actions"),
        ("loop.num_epochs=2", "loop.num_epochs=2: cannot be planned: "),
        ("model.text.num_heads=3", "model: width must be a multiple of num_heads"),
        ("device_count=3", "device_count"),
    ],
)
def test_refuses(capsys, argument, message):
    assert refusal(main, *TINY, GONE, argument, capsys=capsys).startswith(message)
