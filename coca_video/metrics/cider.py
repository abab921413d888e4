"""CIDEr-D (Vedantam et al., arXiv:1411.5726) of tokenised captions, as coco-caption computes it."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coca_video.metrics.ngrams import MAX_ORDER, NGram, NGramCounts, count_ngrams, num_words

SIGMA = 6.0  # words: the width of the penalty on differing lengths


@dataclass(frozen=True)
class Vectors:
    """tf-idf of a caption's n-grams, [n - 1] for each order."""

    num_words: int
    weights: list[dict[NGram, float]]
    norms: list[float]


def cider_d(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> list[float]:
    """The score of each caption, 0 to 10. See `coca_video.metrics.captioning.cider_d`."""
    counted = [[count_ngrams(reference) for reference in group] for group in references]
    idf = _inverse_document_frequency(counted)
    scores = []
    for candidate, group in zip(candidates, counted):
        vectors = _vectors(count_ngrams(candidate), idf)
        similarities = [_similarity(vectors, _vectors(counts, idf)) for counts in group]
        scores.append(10 * sum(similarities) / len(similarities))
    return scores


def _inverse_document_frequency(counted: list[list[NGramCounts]]) -> Callable[[NGram], float]:
    """log(images / images with this n-gram in a reference); an n-gram of no reference counts as one's."""
    document_frequency: Counter[NGram] = Counter()
    for group in counted:
        document_frequency.update({ngram for counts in group for of_order in counts for ngram in of_order})
    log_num_images = math.log(len(counted))
    return lambda ngram: log_num_images - math.log(max(1, document_frequency[ngram]))


def _vectors(counts: NGramCounts, idf: Callable[[NGram], float]) -> Vectors:
    weights = [{ngram: count * idf(ngram) for ngram, count in of_order.items()} for of_order in counts]
    return Vectors(num_words(counts), weights, [math.hypot(*of_order.values()) for of_order in weights])


def _similarity(candidate: Vectors, reference: Vectors) -> float:
    penalty = math.exp(-((candidate.num_words - reference.num_words) ** 2) / (2 * SIGMA**2))
    return penalty * sum(_clipped_cosine(candidate, reference, n) for n in range(MAX_ORDER)) / MAX_ORDER


def _clipped_cosine(candidate: Vectors, reference: Vectors, n: int) -> float:
    """Cosine of the tf-idf vectors, in whose product no candidate weight exceeds the reference's."""
    ours, theirs = candidate.weights[n], reference.weights[n]
    product = sum(
        min(weight, theirs[ngram]) * theirs[ngram] for ngram, weight in ours.items() if ngram in theirs
    )
    norms = candidate.norms[n] * reference.norms[n]
    return product / norms if norms else 0.0
