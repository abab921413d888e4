"""CLIP's tokenizer, by open_clip's own."""

import gzip
import json
import random
import unicodedata
from pathlib import Path

import open_clip
import pytest

from coca_video.data.clip_tokenizer import ClipTokenizer, find_clip_vocabulary
from coca_video.data.tokenizer import Tokenizer
from coca_video.errors import InputError

CONTEXT = 76
TEXTS = [
    "",
    " \t\n ",
    "a photo of a cat",
    "Hello,   World!!",
    "it\u2019s  \u201cquoted\u201d \u2013 dash",
    "wow!\u2764",
    "na\u00efve caf\u00e9, \u00dcBER",
    "\u65e5\u672c\u8a9e \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u0939\u093f\u0928\u094d\u0926\u0940",
    "&amp;lt;b&amp;gt; &quot;x&quot;",
    "don't I'll WE'VE she'd 'S ''s",
    "1234 56.7 \u00bd \u00b2",
    "\U0001f600\U0001f44d\U0001f3fd \u200b",
    "\ufb01 \u0130stanbul",
    "schÃ¶n",  # mojibake that ftfy repairs
    "word " * 100,
    "a" * 300,
    "\u0345a\u0345b!\u0345! x'\u017fx '\ufb06",  # signs with letters as their other case
    "\ud83d\ude00 \udc00",
    "!!a !@# </w> ---...???",
    "\x00a\x1cb\x85c\u2028d\u3000e\ufeff",
]
BLOCKS = [(32, 126)] * 6 + [(0xA0, 0x24F), (0x370, 0x4FF), (0x620, 0x64A), (0x3040, 0x30FF), (0x4E00, 0x9FFF)]


@pytest.fixture(scope="module")
def tokenizer() -> ClipTokenizer:
    return ClipTokenizer.from_file(find_clip_vocabulary())


@pytest.fixture(scope="module")
def theirs():
    return open_clip.get_tokenizer("coca_ViT-B-32")


def random_texts() -> list[str]:
    """Half of them of common scripts, half of any characters that every table of Unicode in use knows."""
    rng = random.Random(0)
    known = [chr(i) for i in range(0x20000) if unicodedata.category(chr(i)) != "Cn"]
    common = [[chr(rng.randint(*rng.choice(BLOCKS))) for _ in range(rng.randint(1, 30))] for _ in range(250)]
    return ["".join(text) for text in common + [rng.choices(known, k=rng.randint(1, 12)) for _ in range(250)]]


def test_ids_and_padding_are_open_clip_s(tokenizer, theirs):
    texts = TEXTS + random_texts()
    ids, mask = tokenizer.encode_batch(texts, max_length=CONTEXT)
    assert theirs(texts)[:, : ids.shape[1]].equal(ids) and mask.equal(ids != 0)
    assert ids.shape[1] == CONTEXT


def test_known_ids(tokenizer):
    for text, ids in [
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("Hello,   World!!", [3306, 267, 1002, 748]),
        ("it\u2019s &lt;3 caf\u00e9 \U0001f600", [585, 568, 283, 274, 15304, 7334]),
    ]:
        assert tokenizer.encode(text, max_length=CONTEXT) == [49406, *ids, 49407]
    assert (tokenizer.begin, tokenizer.end, tokenizer.vocab_size) == (49406, 49407, 49408)


def test_decoding_is_open_clip_s(tokenizer, theirs):
    for text in ["A dog's ball, 3 times!", "\u65e5\u672c \U0001f600 caf\u00e9", "it's   fine"]:
        ids = tokenizer.encode(text, max_length=CONTEXT)
        assert tokenizer.decode(ids) == theirs.decode(ids[1:-1]).strip()
        assert tokenizer.decode([*ids, *ids]) == tokenizer.decode(ids)


def test_no_text_makes_a_special_id(tokenizer):
    """open_clip's own would."""
    text = "<start_of_text> <end_of_text> <|startoftext|> <|endoftext|>"
    ids = tokenizer.encode(text, max_length=CONTEXT)
    assert max(ids[1:-1]) < tokenizer.begin
    assert tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "")


def test_decoding_any_ids_is_open_clip_s(tokenizer, theirs):
    """Cut characters and the middle of words included."""
    rng = random.Random(0)
    for _ in range(200):
        ids = rng.choices(range(tokenizer.begin), k=6) + rng.choices(range(512), k=3)
        assert tokenizer.decode([tokenizer.begin, *ids]) == theirs.decode(ids).strip()


def test_an_exclamation_mark_is_masked_like_padding(tokenizer):
    ids, mask = tokenizer.encode_batch(["!@#", "a photo of"], max_length=CONTEXT)
    assert ids[0].tolist() == [49406, 0, 39397, 49407, 0]
    assert mask[0].tolist() == [True, False, True, True, False] and mask[1].all()
    assert tokenizer.decode(ids[0].tolist()) == "!@#"


def test_a_number_too_long_for_python_is_no_error(tokenizer):
    text = "&#" + "9" * 5000 + ";"
    assert tokenizer.decode(tokenizer.encode(text, max_length=6000)).replace(" ", "") == text


def test_half_a_surrogate_pair_is_no_error(tokenizer):
    assert tokenizer.encode("\ud800 x", max_length=9)[-2:] == [343, tokenizer.end]


def test_a_stored_one_is_the_same(tokenizer, tmp_path):
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    for read in (Tokenizer.load, ClipTokenizer.from_file):
        loaded = read(tmp_path / "tokenizer.json")
        assert isinstance(loaded, ClipTokenizer) and loaded.to_json() == tokenizer.to_json()
        for text in TEXTS:
            assert loaded.encode(text, max_length=40) == tokenizer.encode(text, max_length=40)


@pytest.mark.parametrize("spelling", ["pairs", "strings"])
def test_the_hub_s_json_and_merges(tokenizer, tmp_path, spelling):
    """A tokenizer.json with other names for the special ids, and both spellings of merges; merges.txt."""
    content = json.loads(tokenizer.to_json())
    merges = [merge.split() if isinstance(merge, str) else merge for merge in content["model"]["merges"]]
    content["model"]["merges"] = merges if spelling == "pairs" else [" ".join(merge) for merge in merges]
    content["added_tokens"] = [{"id": 49406, "content": "<|startoftext|>", "special": True}]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(merge) for merge in merges))
    readers = [(ClipTokenizer.from_file, "tokenizer.json"), (ClipTokenizer.from_file, "merges.txt")]
    for read, name in [*readers, (Tokenizer.load, "tokenizer.json")]:
        loaded = read(tmp_path / name)
        for text in TEXTS:
            assert loaded.encode(text, max_length=40) == tokenizer.encode(text, max_length=40)


def damaged(folder: Path, kind: str) -> Path:
    whole = find_clip_vocabulary().read_bytes()
    path = folder / ("merges.txt" if kind in ("few", "binary") else "vocabulary.txt.gz")
    match kind:
        case "truncated":
            path.write_bytes(whole[: len(whole) // 2])
        case "few":
            path.write_bytes(b"\n".join(gzip.decompress(whole).split(b"\n")[:99]))
        case "binary":
            path.write_bytes(whole)
        case "no gzip":
            path.write_bytes(b"a b\n")
    return path


@pytest.mark.parametrize("kind", ["missing", "truncated", "few", "binary", "no gzip"])
def test_a_bad_file_is_named(tmp_path, kind):
    path = damaged(tmp_path, kind)
    with pytest.raises(InputError, match=f"^{path}: not CLIP's vocabulary") as caught:
        ClipTokenizer.from_file(path)
    assert "\n" not in str(caught.value)
    assert kind != "few" or "has 48894 merges of two, found 98" in str(caught.value)


def test_ids_in_another_order_are_refused(tokenizer, tmp_path):
    content = json.loads(tokenizer.to_json())
    vocab = content["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    for load in (Tokenizer.load, ClipTokenizer.from_file):
        with pytest.raises(InputError, match=f"{path}: .*its ids are not in the order of its merges"):
            load(path)


def test_another_tokenizer_is_not_clip_s(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(Tokenizer.train(["a fox"], vocab_size=270).to_json())
    with pytest.raises(InputError, match=f"{path}: is a tokenizer, but not CLIP's"):
        ClipTokenizer.from_file(path)


def test_prompts_are_counted_whole_though_a_sign_has_the_id_of_padding(tokenizer):
    """What is read of a prompt is the same whatever is behind it."""
    prompt, texts = 'is it !"#$% a', ["yes", "no way", ""]
    ids, mask, is_prompt = tokenizer.encode_prompted([prompt] * 3, texts, max_length=CONTEXT)
    whole = tokenizer.encode(prompt, max_length=CONTEXT)[:-1]
    assert 0 in whole
    for row, text in enumerate(texts):
        assert ids[row][is_prompt[row]].tolist() == whole
        behind = tokenizer.encode(text, max_length=CONTEXT)[1:]
        assert ids[row][~is_prompt[row]][: len(behind)].tolist() == behind
        assert not mask[row][~is_prompt[row]][len(behind) :].any()
