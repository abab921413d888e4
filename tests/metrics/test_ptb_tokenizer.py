import json
from pathlib import Path

import pytest

from coca_video.metrics.ptb_tokenizer import tokenize

# Captions and oddities with the tokens of pycocoevalcap 1.2 (PTBTokenizer.tokenize), joined by spaces.
GOLDEN = json.loads((Path(__file__).parent / "golden_tokens.json").read_text(encoding="utf-8"))


def test_tokens_equal_the_official_ones():
    assert len(GOLDEN) > 400
    differing = {text: tokens for text, tokens in GOLDEN if " ".join(tokenize(text)) != tokens}
    assert not differing


@pytest.mark.parametrize(
    "text, tokens",
    [
        ("The dog's red-hot bone isn't here.", "the dog 's red-hot bone is n't here"),
        ("“Wow!” -- 3.5 (or 1,000) dogs’ bones", "wow 3.5 -lrb- or 1,000 -rrb- dogs bones"),
        ("I cannot, you can’t; y'all gonna", "i can not you ca n't y' all gon na"),
        ("Mr. O'Brien at 5 p.m.", "mr. o'brien at 5 p.m."),
        ("plan B. The dog", "plan b the dog"),  # a sentence has ended
        ("plan B. the dog", "plan b. the dog"),
        ("no. 5, but no.", "no. 5 but no"),
        ("what?! no! 😀", "what ?! no"),
        (" \n", ""),
        ("", ""),
    ],
)
def test_tokenize(text, tokens):
    assert tokenize(text) == tokens.split()


def test_a_number_and_its_fraction_are_one_token():
    assert tokenize("1 1/2 pizzas") == ["1\xa01/2", "pizzas"]


def test_what_follows_in_other_lines_is_read_as_the_same_caption():
    assert tokenize("a dog\nand a cat") == tokenize("a dog and a cat")
