import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metrics import naive_captioning as naive

from coca_video.metrics import cider
from coca_video.metrics.bleu import bleu
from coca_video.metrics.captioning import caption_scores, cider_d, distinct_ratio, exact_match
from coca_video.metrics.ptb_tokenizer import tokenize
from coca_video.metrics.rouge import rouge_l

# Generated captions with the scores of pycocoevalcap 1.2: PTBTokenizer, then Bleu, Rouge, Cider and Meteor.
GOLDEN = json.loads((Path(__file__).parent / "golden_scores.json").read_text(encoding="utf-8"))
CANDIDATES = [image["candidate"] for image in GOLDEN["images"]]
REFERENCES = [image["references"] for image in GOLDEN["images"]]

words = st.lists(st.sampled_from("a the dog cat runs".split()), max_size=7)
images = st.lists(st.tuples(words, st.lists(words, min_size=1, max_size=3)), min_size=1, max_size=5)


def test_scores_equal_the_official_ones():
    assert len(CANDIDATES) == 80 and {len(group) for group in REFERENCES} == {1, 2, 3, 4, 5}
    scores = caption_scores(CANDIDATES, REFERENCES)
    assert [scores[f"bleu_{n}"] for n in range(1, 5)] == pytest.approx(GOLDEN["bleu"], abs=1e-12)
    assert scores["rouge_l"] == pytest.approx(GOLDEN["rouge_l"], abs=1e-12)
    assert scores["cider_d"] == pytest.approx(GOLDEN["cider_d"], abs=1e-12)


def test_scores_of_each_image_equal_the_official_ones():
    mean, scores = cider_d(CANDIDATES, REFERENCES)
    assert mean == pytest.approx(GOLDEN["cider_d"], abs=1e-12)
    assert scores == pytest.approx([image["cider_d"] for image in GOLDEN["images"]], abs=1e-10)
    for image in GOLDEN["images"]:
        references = [tokenize(reference) for reference in image["references"]]
        assert rouge_l(tokenize(image["candidate"]), references) == pytest.approx(image["rouge_l"], abs=1e-12)


@given(images)
@settings(max_examples=60, deadline=None)
def test_scores_equal_their_definitions(images):
    candidates, references = map(list, zip(*images))
    of_corpus = [naive.bleu(candidates, references, n) for n in range(1, 5)]
    assert bleu(candidates, references) == pytest.approx(of_corpus, abs=1e-12)
    assert cider.cider_d(candidates, references) == pytest.approx(
        naive.cider_d(candidates, references), abs=1e-9
    )
    for candidate, group in images:
        assert rouge_l(candidate, group) == pytest.approx(naive.rouge_l(candidate, group), abs=1e-12)


@given(images, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_scores_are_bounded_and_the_order_of_images_does_not_matter(images, random):
    scores = _scores(images)
    for name, score in scores.items():
        most = 10 if name == "cider_d" else math.inf if "length" in name else 1
        assert -1e-12 <= score <= most + 1e-9, name
    assert scores == pytest.approx(_scores(random.sample(images, len(images))), abs=1e-9)


@given(images)
@settings(max_examples=60, deadline=None)
def test_a_caption_equal_to_a_reference_is_perfect(images):
    scores = _scores([(group[-1], group) for _, group in images])
    assert scores["rouge_l"] == pytest.approx(1)
    assert scores["exact_match"] == 1
    if any(group[-1] for _, group in images):
        assert scores["bleu_1"] == pytest.approx(1)


def _scores(images: list[tuple[list[str], list[list[str]]]]) -> dict[str, float]:
    references = [[" ".join(reference) for reference in group] for _, group in images]
    return caption_scores([" ".join(caption) for caption, _ in images], references)


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


def test_bleu_takes_the_closest_length_and_the_shorter_of_two():
    references = [["the dog runs on".split(), "the dog runs on and on".split()]]
    assert bleu(["the dog runs on and".split()], references)[0] == pytest.approx(1)
    assert bleu(["the dog".split()], references)[0] == pytest.approx(math.exp(1 - 4 / 2))


def test_rouge_takes_precision_and_recall_from_different_references():
    # Precision 2/2 from the first, recall 1/1 from the second.
    assert rouge_l("a dog".split(), ["a big brown dog".split(), ["dog"]]) == pytest.approx(1)
    assert rouge_l("a dog".split(), ["a big brown dog".split()]) == pytest.approx(2.44 * 0.5 / (0.5 + 1.44))
    assert rouge_l([], [[]]) == pytest.approx(1)
    assert rouge_l([], [["dog"]]) == 0


def test_exact_match():
    references = [["a dog", "a hound"], ["two cats"], ["rain"], [""]]
    candidates = ["A hound.", "two cats", "heavy rain", "."]
    assert exact_match(candidates, references) == 0.75
    assert caption_scores(candidates, references)["exact_match"] == 0.75


def test_distinct_ratio():
    captions = ["a dog", "A dog.", "a cat", "a dog"]
    assert distinct_ratio(captions) == 0.5
    assert caption_scores(captions, [["x"]] * 4)["distinct_ratio"] == 0.5


def test_lengths_and_repetition():
    scores = caption_scores(
        ["on and on and on and.", "It's a dog!"], [["one", "one, two"], ["one two three four"]]
    )
    assert scores["mean_length"] == (6 + 4) / 2
    assert scores["mean_reference_length"] == pytest.approx((1 + 2 + 4) / 3)
    assert scores["repeated_ngrams"] == pytest.approx((1 / 3 + 0) / 2)  # the third begins like the first


@pytest.mark.parametrize("metric", [cider_d, exact_match, caption_scores])
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
