import json
import subprocess
import sys

import pytest
import torch

from coca_video.data.tokenizer import Tokenizer
from coca_video.errors import InputError

PAD, BEGIN, END, NUM_SPECIAL = Tokenizer.pad, Tokenizer.begin, Tokenizer.end, Tokenizer.first_id
CORPUS = ["a person juggling", "a person jumping over a fence", "the person is jumping"] * 3
ODD_TEXTS = [
    "",
    " ",
    "  two  spaces\tand\nlines ",
    "Ünïcödé, naïve café",
    "日本語 العربية हिन्दी",
    "🙂 👩‍👩‍👧‍👦 🏳️‍🌈 wow!❤",
    "e\u0301 is not é",
    "\x00\x01\x7f\x80\x85\u2028\ufeff",
    "<pad> <s> </s> [CLS] <unk> <|endoftext|>",
    bytes(range(256)).decode("latin-1"),
]


FOREIGN = [[], {"model": 1}, {"model": {"type": "WordPiece", "vocab": {}}}, {"model": {"type": "BPE"}}]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(CORPUS, vocab_size=280)


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_any_text_comes_back_and_never_makes_a_special_id(tokenizer, text):
    ids = tokenizer.encode(text, max_length=10_000)
    assert (ids[0], ids[-1]) == (BEGIN, END)
    assert all(NUM_SPECIAL <= i < tokenizer.vocab_size for i in ids[1:-1])
    assert tokenizer.decode(ids) == text


def test_learns_the_corpus(tokenizer):
    assert tokenizer.vocab_size == 280
    assert len(tokenizer.encode("a person", max_length=99)) < len("a person")


def test_a_small_corpus_makes_a_small_vocabulary():
    tokenizer = Tokenizer.train(["aa"], vocab_size=5000)
    assert tokenizer.vocab_size == NUM_SPECIAL + 256 + 1


def test_vocab_size_must_hold_every_byte():
    with pytest.raises(ValueError, match="at least 259, got 258"):
        Tokenizer.train(CORPUS, vocab_size=258)


def test_a_cut_keeps_the_end(tokenizer):
    whole = tokenizer.encode("a person juggling", max_length=99)
    for max_length in range(2, len(whole)):
        assert tokenizer.encode("a person juggling", max_length=max_length) == whole[: max_length - 1] + [END]
    assert tokenizer.encode("a person juggling", max_length=len(whole)) == whole


def test_max_length_must_hold_begin_and_end(tokenizer):
    with pytest.raises(ValueError, match="max_length must be at least 2, got 1"):
        tokenizer.encode("a person", max_length=1)


def test_a_character_cut_in_two_can_still_be_read(tokenizer):
    cut = tokenizer.encode("a🙂", max_length=4)
    assert tokenizer.decode(cut) == "a\ufffd"


def test_batches_are_padded_behind(tokenizer):
    texts = ["a person juggling", "", "🙂"]
    ids, mask = tokenizer.encode_batch(texts, max_length=99)
    assert ids.dtype == torch.long and mask.dtype == torch.bool
    for row, real, text in zip(ids, mask, texts):
        expected = tokenizer.encode(text, max_length=99)
        assert row[real].tolist() == expected
        assert row.tolist() == expected + [PAD] * (ids.shape[1] - len(expected))
    assert mask.any(dim=0).all()


def test_decode_stops_at_the_end_and_drops_special_ids(tokenizer):
    word = tokenizer.encode("jumping", max_length=99)[1:-1]
    assert tokenizer.decode([BEGIN, PAD, *word, END, *word]) == "jumping"
    assert tokenizer.decode(torch.tensor([BEGIN, *word])) == "jumping"
    assert tokenizer.decode([]) == ""


def test_a_stored_tokenizer_is_the_same(tokenizer, tmp_path):
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.to_json() == tokenizer.to_json() and loaded.vocab_size == tokenizer.vocab_size
    for text in [*CORPUS, *ODD_TEXTS]:
        assert loaded.encode(text, max_length=99) == tokenizer.encode(text, max_length=99)


def test_training_is_reproducible(tokenizer):
    assert Tokenizer.train(CORPUS, vocab_size=280).to_json() == tokenizer.to_json()


@pytest.mark.parametrize("content", ["", "not json", *map(json.dumps, FOREIGN), "\udcff"])
def test_a_bad_file_is_named(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=f"{path}: not a tokenizer file"):
        Tokenizer.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="missing.json: not a tokenizer file"):
        Tokenizer.load(tmp_path / "missing.json")


CUT = """
import warnings
from coca_video.data.clip_tokenizer import ClipTokenizer, find_clip_vocabulary
from coca_video.data.tokenizer import Tokenizer
trained = Tokenizer.train(["a fox"], vocab_size=280)
for tokenizer in (trained, ClipTokenizer.from_file(find_clip_vocabulary())):
    for text in ("a fox " * 20, "another " * 20):
        assert len(tokenizer.encode(text, max_length=9)) == 9
        warnings.simplefilter("default")  # makes Python forget what it has shown
tokenizer.encode("a fox", max_length=90)
"""


def test_cutting_is_told_once():
    """In a process of its own: other tests cut too."""
    run = subprocess.run([sys.executable, "-c", CUT], capture_output=True, text=True, check=True)
    assert run.stderr.count("texts of more than 9 tokens are cut") == 1
    assert run.stderr.count("Warning") == 1


def test_texts_behind_prompts(tokenizer):
    """One text to the tokens, and the prompt's are the same whatever is behind it."""
    prompts, texts = ["a person", "", "the person is"], ["juggling", "a fence", ""]
    ids, mask, is_prompt = tokenizer.encode_prompted(prompts, texts, max_length=99)
    for i, (prompt, text) in enumerate(zip(prompts, texts)):
        row = ids[i][mask[i]].tolist()
        assert tokenizer.decode(row) == f"{prompt} {text}".strip()
        assert ids[i][is_prompt[i]].tolist() == tokenizer.encode(prompt, max_length=99)[:-1]
        assert row[-1] == END and is_prompt[i].sum() == len(row) - len(text_ids(tokenizer, prompt, text)) - 1
    plain = tokenizer.encode_batch(texts, max_length=99)
    assert torch.equal(tokenizer.encode_prompted([""] * 3, texts, max_length=99)[0], plain[0])


def text_ids(tokenizer: Tokenizer, prompt: str, text: str) -> list[int]:
    return tokenizer.encode(f" {text}" if prompt and text else text, max_length=99)[1:-1]


def test_a_long_prompt_is_cut_before_what_follows_it(tokenizer):
    whole, length = tokenizer.encode_after("a person jumping", "over", max_length=99)
    behind = len(whole) - length  # and the end
    for max_length in range(2, len(whole)):
        ids, num_prompt = tokenizer.encode_after("a person jumping", "over", max_length=max_length)
        assert len(ids) == max_length and (ids[0], ids[-1]) == (BEGIN, END)
        kept = min(behind - 1, max_length - 2)
        assert ids[num_prompt:-1] == whole[length : length + kept]
        assert ids[:num_prompt] == whole[:num_prompt] and num_prompt == max_length - 1 - kept
