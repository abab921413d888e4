"""Caption metrics straight from their definitions: slow, and with nothing of the package in them."""

import math


def ngrams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def bleu(candidates: list[list[str]], references: list[list[list[str]]], n: int) -> float:
    precisions = []
    for order in range(1, n + 1):
        right = written = 0
        for candidate, group in zip(candidates, references):
            written += len(ngrams(candidate, order))
            for ngram in set(ngrams(candidate, order)):
                allowed = max(ngrams(reference, order).count(ngram) for reference in group)
                right += min(ngrams(candidate, order).count(ngram), allowed)
        precisions.append((right + 1e-15) / (written + 1e-9))
    length = sum(map(len, candidates))
    closest = sum(
        sorted((abs(len(reference) - len(candidate)), len(reference)) for reference in group)[0][1]
        for candidate, group in zip(candidates, references)
    )
    mean = math.prod(precisions) ** (1 / n)
    ratio = (length + 1e-15) / (closest + 1e-9)
    return mean if ratio >= 1 else mean * math.exp(1 - 1 / ratio)


def common_subsequence(a: list[str], b: list[str]) -> int:
    if not a or not b:
        return 0
    if a[0] == b[0]:
        return 1 + common_subsequence(a[1:], b[1:])
    return max(common_subsequence(a[1:], b), common_subsequence(a, b[1:]))


def rouge_l(candidate: list[str], references: list[list[str]], beta: float = 1.2) -> float:
    candidate, references = candidate or [""], [reference or [""] for reference in references]
    lengths = [common_subsequence(candidate, reference) for reference in references]
    precision = max(length / len(candidate) for length in lengths)
    recall = max(length / len(reference) for length, reference in zip(lengths, references))
    if precision == 0:
        return 0.0
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


def cider_d(candidates: list[list[str]], references: list[list[list[str]]]) -> list[float]:
    def idf(ngram: tuple[str, ...]) -> float:
        groups = sum(
            any(ngram in ngrams(reference, len(ngram)) for reference in group) for group in references
        )
        return math.log(len(references) / max(1, groups))

    def similarity(candidate: list[str], reference: list[str], n: int) -> float:
        vocabulary = set(ngrams(candidate, n) + ngrams(reference, n))
        ours = {ngram: ngrams(candidate, n).count(ngram) * idf(ngram) for ngram in vocabulary}
        theirs = {ngram: ngrams(reference, n).count(ngram) * idf(ngram) for ngram in vocabulary}
        product = sum(min(ours[ngram], theirs[ngram]) * theirs[ngram] for ngram in vocabulary)
        norms = [math.sqrt(sum(weight**2 for weight in weights.values())) for weights in (ours, theirs)]
        if 0 in norms:
            return 0.0
        return product / math.prod(norms) * math.exp(-((len(candidate) - len(reference)) ** 2) / (2 * 6**2))

    scores = []
    for candidate, group in zip(candidates, references):
        of_references = [
            sum(similarity(candidate, reference, n) for n in range(1, 5)) / 4 for reference in group
        ]
        scores.append(10 * sum(of_references) / len(group))
    return scores
