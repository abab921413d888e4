"""How good captions are: CIDEr-D and two plain shares. Pure Python over lists of strings."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

MAX_ORDER = 4  # n-grams of 1 to 4 words
SIGMA = 6.0  # words: the width of the penalty on differing lengths

NGram = tuple[str, ...]
NGramCounts = list[Counter[NGram]]  # [n - 1]: how often each n-gram occurs


def tokenize(text: str) -> list[str]:
    """Lower-case words without punctuation, close to the PTB tokens coco-caption scores.

    `The dog's red-hot bone isn't here.` -> `the dog 's red-hot bone is n't here`
    """
    text = text.lower().replace("’", "'")
    text = re.sub(r"n't\b", " n't", text)
    return re.findall(r"n't|'(?:s|re|ve|ll|d|m)\b|\w+(?:[-.,]\w+)*", text)


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
    candidate_counts = [_count_ngrams(candidate) for candidate in candidates]
    reference_counts = [[_count_ngrams(reference) for reference in group] for group in references]
    idf = _inverse_document_frequency(reference_counts)
    scores = [
        10 * _mean([_similarity(candidate, reference, idf) for reference in group])
        for candidate, group in zip(candidate_counts, reference_counts)
    ]
    return _mean(scores), scores


def exact_match(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """The share of candidates with the same tokens as one of their references."""
    _check_pairs(candidates, references)
    return _mean([tokenize(c) in map(tokenize, group) for c, group in zip(candidates, references)])


def distinct_ratio(candidates: Sequence[str]) -> float:
    """Different captions (by their tokens) / captions: low if the same is said of everything."""
    if not candidates:
        raise ValueError("expected at least one candidate, got none")
    return len({tuple(tokenize(candidate)) for candidate in candidates}) / len(candidates)


def _count_ngrams(caption: str) -> NGramCounts:
    words = tokenize(caption)
    return [Counter(zip(*(words[i:] for i in range(n)))) for n in range(1, MAX_ORDER + 1)]


def _inverse_document_frequency(reference_counts: list[list[NGramCounts]]) -> Callable[[NGram], float]:
    """log(images / images with this n-gram in a reference); an n-gram of no reference counts as one's."""
    document_frequency: Counter[NGram] = Counter()
    for group in reference_counts:
        document_frequency.update({ngram for counts in group for of_order in counts for ngram in of_order})
    log_num_images = math.log(len(reference_counts))
    return lambda ngram: log_num_images - math.log(max(1, document_frequency[ngram]))


def _similarity(candidate: NGramCounts, reference: NGramCounts, idf: Callable[[NGram], float]) -> float:
    num_words_apart = candidate[0].total() - reference[0].total()
    penalty = math.exp(-(num_words_apart**2) / (2 * SIGMA**2))
    return penalty * _mean([_clipped_cosine(c, r, idf) for c, r in zip(candidate, reference)])


def _clipped_cosine(
    candidate: Counter[NGram], reference: Counter[NGram], idf: Callable[[NGram], float]
) -> float:
    """Cosine of the tf-idf vectors, in whose product no candidate weight exceeds the reference's."""
    candidate_weights = {ngram: count * idf(ngram) for ngram, count in candidate.items()}
    reference_weights = {ngram: count * idf(ngram) for ngram, count in reference.items()}
    product = sum(
        min(candidate_weights[ngram], weight) * weight
        for ngram, weight in reference_weights.items()
        if ngram in candidate_weights
    )
    norms = math.hypot(*candidate_weights.values()) * math.hypot(*reference_weights.values())
    return product / norms if norms else 0.0


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
