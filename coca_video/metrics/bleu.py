"""BLEU-1 to BLEU-4 of a corpus of captions (Papineni et al., ACL 2002), with coco-caption's constants."""

import math
from collections import Counter
from collections.abc import Sequence

from coca_video.metrics.ngrams import MAX_ORDER, NGramCounts, count_ngrams, num_words

TINY, SMALL = (
    1e-15,
    1e-9,
)  # added to numerators and denominators: no division by zero, no product of exactly 0


def bleu(candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> list[float]:
    """BLEU-1, -2, -3, -4 (0 to 1) of tokenised captions, each judged by one or more references.

    Matches and lengths are summed over all images before anything is divided. A caption's reference length is
    the closest of its references', the shorter of two equally close.
    """
    matched, written = [0] * MAX_ORDER, [0] * MAX_ORDER
    length = reference_length = 0
    for candidate, group in zip(map(count_ngrams, candidates), references):
        counted = [count_ngrams(reference) for reference in group]
        for n, (of_candidate, allowed) in enumerate(zip(candidate, _most_often(counted))):
            matched[n] += (of_candidate & allowed).total()
            written[n] += of_candidate.total()
        length += num_words(candidate)
        reference_length += _closest_length(num_words(candidate), [num_words(counts) for counts in counted])
    brevity = _brevity_penalty(length, reference_length)
    return [brevity * mean for mean in _geometric_means(matched, written)]


def _most_often(references: list[NGramCounts]) -> list[Counter]:
    """How often each n-gram occurs in the reference that has most of it."""
    most = [Counter() for _ in range(MAX_ORDER)]
    for counts in references:
        most = [so_far | of_order for so_far, of_order in zip(most, counts)]
    return most


def _closest_length(length: int, reference_lengths: list[int]) -> int:
    return min(
        reference_lengths, key=lambda reference_length: (abs(reference_length - length), reference_length)
    )


def _brevity_penalty(length: int, reference_length: int) -> float:
    ratio = (length + TINY) / (reference_length + SMALL)
    return math.exp(min(0.0, 1 - 1 / ratio))


def _geometric_means(matched: list[int], written: list[int]) -> list[float]:
    means, product = [], 1.0
    for n, (right, all_of_them) in enumerate(zip(matched, written), start=1):
        product *= (right + TINY) / (all_of_them + SMALL)
        means.append(product ** (1 / n))
    return means
