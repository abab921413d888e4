import json
from pathlib import Path

import pytest
import tiny
import torch
from datasets import call, refusal
from tiny import image_config, shaken

from coca_video.checkpoint import load_checkpoint, save_checkpoint
from coca_video.commands.interpolate import interpolated, main
from coca_video.data.tokenizer import Tokenizer
from coca_video.data.transforms import Preprocessing
from coca_video.models.coca import CoCa

TEXTS = ["a fox jumps over a fence", "a fox sleeps"] * 3
TOKENIZER = Tokenizer.train(TEXTS, vocab_size=300)


def save(path: Path, model: CoCa, **changes) -> Path:
    about = {"tokenizer": TOKENIZER, "preprocessing": Preprocessing(), "trained_on": ["pictures"]}
    save_checkpoint(path, config=model.config, weights=model.state_dict(), **(about | changes))
    return path


def coca(**changes) -> CoCa:
    text = tiny.text_config(vocab_size=TOKENIZER.vocab_size)
    return tiny.coca(text=text, **({"image": image_config(stem="conv", num_layers=1)} | changes))


@pytest.fixture
def first(tmp_path) -> Path:
    return save(tmp_path / "first", coca())


@pytest.fixture
def second(tmp_path) -> Path:
    model = shaken(coca(seed=1))
    model.train().encode_frames(torch.rand(2, 1, 3, 16, 16))  # statistics and counts of batch norms move
    return save(tmp_path / "second", model, trained_on=["pictures", "captions"])


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_weights_are_between_the_two(first, second, tmp_path, capsys, share):
    output = tmp_path / "folder" / "between"
    assert not call(main, first, second, output, *(["--share", share] if share != 0.5 else []))
    found = load_checkpoint(output)
    before, after, between = (load_checkpoint(path).model.state_dict() for path in (first, second, output))
    for name, x in between.items():
        if x.is_floating_point():
            torch.testing.assert_close(x, (1 - share) * before[name] + share * after[name])
        else:
            assert torch.equal(x, after[name]) and not torch.equal(x, before[name])
    assert found.trained_on == ["pictures", "captions"]
    assert found.tokenizer.to_json() == TOKENIZER.to_json() and found.preprocessing == Preprocessing()
    parts = f"{1 - share:.0%} of {first}, {share:.0%} of {second}"
    assert capsys.readouterr().out == f"written: {output}: {parts}\n"


def test_the_ends_are_the_two(first, second):
    before, after = (load_checkpoint(path).model.state_dict() for path in (first, second))
    for share, expected in ((0.0, before), (1.0, after)):
        found = interpolated(before, after, share)
        assert all(torch.equal(found[n], x) for n, x in expected.items() if x.is_floating_point())


@pytest.mark.parametrize("share", ["-0.1", "1.5"])
def test_a_share_is_between_0_and_1(first, second, tmp_path, capsys, share):
    output = tmp_path / "between"
    found = refusal(main, first, second, output, f"--share={share}", capsys=capsys)
    assert found == f"--share {share}: must be in [0, 1]"


def test_nothing_is_replaced(first, second, capsys):
    assert refusal(main, first, second, second, capsys=capsys) == f"{second}: exists"


def test_another_model(first, tmp_path, capsys):
    other = save(tmp_path / "other", coca(embed_dim=16))
    found = refusal(main, first, other, tmp_path / "between", capsys=capsys)
    assert found == f"{other}: is another model: its model.embed_dim is 16, that of {first} is 20"
    assert not (tmp_path / "between").exists()


def test_other_preprocessing(first, tmp_path, capsys):
    other = save(tmp_path / "other", coca(), preprocessing=Preprocessing(resize="squash"))
    found = refusal(main, first, other, tmp_path / "between", capsys=capsys)
    assert found.startswith(f"{other}: is another model: its preprocessing.resize is squash, that of")


def test_another_tokenizer(first, tmp_path, capsys):
    """Of as many ids."""
    words = Tokenizer.train(["the quick brown dog", "the lazy cat"] * 3, vocab_size=TOKENIZER.vocab_size)
    assert words.vocab_size == TOKENIZER.vocab_size
    other = save(tmp_path / "other", coca(), tokenizer=words)
    found = refusal(main, first, other, tmp_path / "between", capsys=capsys)
    assert found == f"{other}: has another tokenizer than {first}"


def test_a_head_that_would_be_lost(first, second, tmp_path, capsys):
    description = json.loads((second / "config.json").read_text())
    (second / "config.json").write_text(json.dumps(description | {"task": {"name": "classification"}}))
    found = refusal(main, first, second, tmp_path / "between", capsys=capsys)
    assert found == f"{second}: has a head for classification, which would be lost"
