import json
import math
from pathlib import Path

import pytest

from coca_video.metrics.captioning import cider_d, distinct_ratio, exact_match, tokenize

# Generated captions with the scores of pycocoevalcap 1.2 (Cider.compute_score).
GOLDEN = json.loads((Path(__file__).parent / "golden_cider.json").read_text())


def test_cider_d_equals_the_reference_code():
    candidates = [image["candidate"] for image in GOLDEN["images"]]
    references = [image["references"] for image in GOLDEN["images"]]
    mean, scores = cider_d(candidates, references)
    assert len(scores) == 60
    assert scores == pytest.approx([image["score"] for image in GOLDEN["images"]], abs=1e-10)
    assert mean == pytest.approx(GOLDEN["mean"], abs=1e-10)


def test_a_perfect_caption_scores_ten_and_a_foreign_one_zero():
    references = [["a red dog runs fast"], ["two birds sing at dawn"], ["the old man paints walls"]]
    candidates = ["A red dog runs fast.", "two birds sing at dawn", "snow falls on hills now"]
    mean, scores = cider_d(candidates, references)
    assert scores == pytest.approx([10, 10, 0])
    assert mean == pytest.approx(20 / 3)


def test_repeated_words_are_clipped_and_length_is_punished():
    references = [["dog"], ["cat"]]
    _, (scores_once, _) = cider_d(["dog", "cat"], references)
    _, (scores_thrice, _) = cider_d(["dog dog dog", "cat"], references)
    assert scores_once == pytest.approx(10 / 4)  # of the four orders only 1-grams exist
    # Cosine (1 * 1) / (3 * 1), two words too many.
    assert scores_thrice == pytest.approx(10 / 4 / 3 * math.exp(-(2**2) / (2 * 6**2)))


def test_a_single_image_scores_zero():
    assert cider_d(["a dog"], [["a dog"]]) == (0, [0])


def test_tokenize():
    assert tokenize("The dog's red-hot bone isn't here.") == "the dog 's red-hot bone is n't here".split()
    words = "wow 3.5 or 1,000 dogs bones we 'll see".split()
    assert tokenize("“Wow!” -- 3.5 (or 1,000) dogs’ bones; we’ll see…") == words
    assert tokenize(" \n") == []


def test_exact_match():
    references = [["a dog", "a hound"], ["two cats"], ["rain"], [""]]
    assert exact_match(["A hound.", "two cats", "heavy rain", "!"], references) == 0.75


def test_distinct_ratio():
    assert distinct_ratio(["a dog", "A dog.", "a cat", "a dog"]) == 0.5


@pytest.mark.parametrize("metric", [cider_d, exact_match])
def test_what_does_not_pair_is_an_error(metric):
    with pytest.raises(ValueError, match="got 0 candidates and 0 groups"):
        metric([], [])
    with pytest.raises(ValueError, match="got 2 candidates and 1 groups"):
        metric(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match=r"references\[1\] is \[\]"):
        metric(["a", "b"], [["a"], []])
    with pytest.raises(ValueError, match=r"references\[0\] is 'a dog', expected a list"):
        metric(["a dog"], ["a dog"])


def test_distinct_ratio_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one candidate"):
        distinct_ratio([])
