"""ROUGE-L of captions (Lin, ACL 2004) as coco-caption computes it."""

from collections.abc import Sequence

BETA = 1.2  # how much more recall counts than precision


def rouge_l(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """ROUGE-L (0 to 1) of one tokenised caption: F of the best precision and the best recall.

    Both are of the longest common subsequence with a reference; they may come from different references. A
    caption without tokens counts as one empty word, so that two of them match.
    """
    candidate, references = candidate or [""], [reference or [""] for reference in references]
    common = [_common_subsequence(candidate, reference) for reference in references]
    precision = max(common) / len(candidate)
    recall = max(length / len(reference) for length, reference in zip(common, references))
    if not precision:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence; `longest[j]` is that of a's words so far and b[:j]."""
    longest = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0
        for j, other in enumerate(b):
            above = longest[j + 1]
            longest[j + 1] = diagonal + 1 if word == other else max(above, longest[j])
            diagonal = above
    return longest[-1]
