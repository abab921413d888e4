"""Counts of n-grams of words, n = 1 to 4, which BLEU and CIDEr are made of."""

from collections import Counter
from collections.abc import Sequence

MAX_ORDER = 4

NGram = tuple[str, ...]
NGramCounts = list[Counter[NGram]]  # [n - 1]: how often each n-gram occurs


def ngrams(words: Sequence[str], n: int) -> list[NGram]:
    return list(zip(*(words[i:] for i in range(n))))


def count_ngrams(tokens: Sequence[str]) -> NGramCounts:
    """As in coco-caption, a token with a no-break space in it (a number and its fraction) is two words."""
    words = " ".join(tokens).split()
    return [Counter(ngrams(words, n)) for n in range(1, MAX_ORDER + 1)]


def num_words(counts: NGramCounts) -> int:
    return counts[0].total()
