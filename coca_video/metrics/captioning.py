"""How good captions are, as the official COCO caption scorer judges them, and how they are worded.

Pure Python over lists of strings; `coca_video.metrics.java` has the metrics that need Java.
"""

from collections.abc import Sequence

from coca_video.metrics import cider
from coca_video.metrics.bleu import bleu
from coca_video.metrics.ngrams import MAX_ORDER, ngrams
from coca_video.metrics.ptb_tokenizer import tokenize
from coca_video.metrics.rouge import rouge_l

__all__ = ["caption_scores", "cider_d", "distinct_ratio", "exact_match", "tokenize"]

Tokens = list[str]


def caption_scores(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """All figures of captions: `candidates[i]` is judged by `references[i]`, one or more of the same image.

    - bleu_1 to bleu_4 (0 to 1): of the corpus, closest reference length.
    - rouge_l (0 to 1): mean over the images; beta 1.2.
    - cider_d (0 to 10): see `cider_d`.
    - exact_match (0 to 1): the share of candidates with the same tokens as one of their references.
    - distinct_ratio (0 to 1): different captions / captions; low if the same is said of everything.
    - mean_length, mean_reference_length: tokens, punctuation not counted.
    - repeated_ngrams (0 to 1): the share of a caption's 4-grams that occurred earlier in it, 0 for a caption
      shorter than that; mean over the captions. High if decoding goes round in circles.

    BLEU, ROUGE-L and CIDEr-D equal pycocoevalcap's, its tokenizer included (see `ptb_tokenizer`).
    """
    _check_pairs(candidates, references)
    tokens, groups = _tokenized(candidates, references)
    in_references = [reference for group in groups for reference in group]
    return {
        **{f"bleu_{n}": score for n, score in enumerate(bleu(tokens, groups), start=1)},
        "rouge_l": _mean([rouge_l(candidate, group) for candidate, group in zip(tokens, groups)]),
        "cider_d": _mean(cider.cider_d(tokens, groups)),
        "exact_match": _share_in_references(tokens, groups),
        "distinct_ratio": _distinct_ratio(tokens),
        "mean_length": _mean([len(caption) for caption in tokens]),
        "mean_reference_length": _mean([len(reference) for reference in in_references]),
        "repeated_ngrams": _mean([_share_of_repeated_ngrams(caption) for caption in tokens]),
    }


def cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """CIDEr-D (arXiv:1411.5726): the mean over all images, and the score of each.

    `candidates[i]` is judged by `references[i]`, one or more captions of the same image, as coco-caption
    does: tf-idf over 1- to 4-grams, document frequencies counted in the references given here, counts
    clipped to the reference's, a Gaussian penalty on the difference in length, times 10. A score is thus
    0 to 10; papers print 100 times as much, so that 1.2 here is their "CIDEr 120".

    Scores depend on the images judged together: an n-gram found with every image weighs nothing, so a
    single image always scores 0.
    """
    _check_pairs(candidates, references)
    scores = cider.cider_d(*_tokenized(candidates, references))
    return _mean(scores), scores


def exact_match(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """The share of candidates with the same tokens as one of their references."""
    _check_pairs(candidates, references)
    return _share_in_references(*_tokenized(candidates, references))


def distinct_ratio(candidates: Sequence[str]) -> float:
    """Different captions (by their tokens) / captions: low if the same is said of everything."""
    if not candidates:
        raise ValueError("expected at least one candidate, got none")
    return _distinct_ratio([tokenize(candidate) for candidate in candidates])


def _tokenized(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[Tokens], list[list[Tokens]]]:
    groups = [[tokenize(reference) for reference in group] for group in references]
    return [tokenize(candidate) for candidate in candidates], groups


def _share_in_references(candidates: list[Tokens], references: list[list[Tokens]]) -> float:
    return _mean([candidate in group for candidate, group in zip(candidates, references)])


def _distinct_ratio(candidates: list[Tokens]) -> float:
    return len(set(map(tuple, candidates))) / len(candidates)


def _share_of_repeated_ngrams(caption: Tokens) -> float:
    in_order = ngrams(caption, MAX_ORDER)
    return 1 - len(set(in_order)) / len(in_order) if in_order else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _check_pairs(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if not candidates or len(candidates) != len(references):
        raise ValueError(
            "expected at least one candidate and as many groups of references, "
            f"got {len(candidates)} candidates and {len(references)} groups"
        )
    for i, group in enumerate(references):
        if isinstance(group, str) or not group:
            raise ValueError(f"references[{i}] is {group!r}, expected a list of one or more captions")
