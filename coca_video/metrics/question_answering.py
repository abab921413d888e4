"""How good answers to questions are: VQA v2's rule, plain matches, and NLVR2's consistency. All in per cent.

VQA's accuracy and normalisation are those of the evaluation code of its authors (GT-Vision-Lab/VQA on
GitHub, PythonEvaluationTools/vqaEvaluation/vqaEval.py), in its later form, peculiarities included: answers
and references are normalised alike, and not at all where all references are equal. An older form, which other
projects still carry, always normalised the answer, and of the references no more than the punctuation.
`vqa_contractions.json` is its table of contractions, entries that can never apply included.
"""

import json
import re
from collections import defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path

CONTRACTIONS = json.loads(Path(__file__).with_name("vqa_contractions.json").read_text(encoding="utf-8"))
ARTICLES = {"a", "an", "the"}
NUMBERS = {"none": "0"} | {
    word: str(number)
    for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
}
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
MAX_FULL_STOPS = 32  # as many as the official code takes out of an answer
NUM_AGREEING = 3  # annotators who gave an answer that counts as entirely right


def vqa_accuracy(answers: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """VQA v2's accuracy in per cent: the mean over all questions, and that of each.

    `references[i]` are what the annotators said, ten in VQA v2. An answer's accuracy is the mean of
    min(matches / 3, 1) over all ways to leave one annotator out. With ten of them, one to four matches give
    30, 60, 90 and 100.

    With other numbers of annotators the rule is the same over those there are: of n equal references, three
    give 66.7 and four or more 100. One alone would always give 0, and is an error: use `exact_accuracy`.

    If annotators differ, all answers are normalised before; if all said literally the same, nothing but white
    space at the ends is, and an answer that differs only in its upper case is wrong.
    """
    _check_lengths(answers, references, "groups of references")
    scores = [_vqa_score(answer, group, i) for i, (answer, group) in enumerate(zip(answers, references))]
    return _mean(scores), scores


def exact_accuracy(answers: Sequence[str], references: Sequence[str]) -> tuple[float, list[float]]:
    """Per cent of answers that are their reference but for case and white space at the ends; that of each.

    The usual figure of open-ended video question answering (MSRVTT-QA, MSVD-QA).
    """
    _check_lengths(answers, references, "references")
    for i, reference in enumerate(references):
        if not isinstance(reference, str):
            raise ValueError(f"references[{i}] is {reference!r}, expected one answer")
    scores = [
        100.0 * (answer.strip().lower() == reference.strip().lower())
        for answer, reference in zip(answers, references)
    ]
    return _mean(scores), scores


def by_group(scores: Sequence[float], groups: Sequence[Hashable]) -> dict[Hashable, float]:
    """The mean score of each group, in the order in which they first occur: groups[i] is that of scores[i].

    For VQA the groups are `answer_type` or `question_type`.
    """
    _check_lengths(scores, groups, "groups")
    members = defaultdict(list)
    for score, group in zip(scores, groups):
        members[group].append(score)
    return {group: _mean(of_group) for group, of_group in members.items()}


def accuracy(is_right: Sequence[bool]) -> float:
    """Per cent that are right."""
    if not len(is_right):
        raise ValueError("expected at least one answer, got none")
    return 100 * _mean([bool(right) for right in is_right])


def consistency(is_right: Sequence[bool], groups: Sequence[Hashable]) -> float:
    """Per cent of groups all of whose members are right (NLVR2, arXiv 1811.00491).

    The groups of NLVR2 are `nlvr2_sentence` of each example's identifier.
    """
    _check_lengths(is_right, groups, "groups")
    return accuracy([share == 1 for share in by_group([bool(right) for right in is_right], groups).values()])


def nlvr2_sentence(identifier: str) -> str:
    """What all examples of one sentence share: `dev-850-2-1` -> `dev-850-1`.

    An identifier is split, set of pictures, pair in it and sentence: the pair is left out, not the last part.
    """
    parts = identifier.split("-")
    if len(parts) != 4:
        raise ValueError(
            f"identifier is {identifier!r}, expected split-set-pair-sentence, like 'dev-850-2-1'"
        )
    split, pictures, _, sentence = parts
    return f"{split}-{pictures}-{sentence}"


def normalise_answer(answer: str) -> str:
    """An answer as VQA compares it: without punctuation and articles, numbers to ten as digits, lower case.

    `The two  cats, I dont know` -> `2 cats i don't know`
    """
    answer = _without_punctuation(_on_one_line(answer))
    words = [NUMBERS.get(word, word) for word in answer.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def _on_one_line(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


def _without_punctuation(answer: str) -> str:
    """A mark becomes a space; but nothing, if it is beside a space anywhere in the answer.

    All marks become nothing in an answer with a comma between digits. A full stop before a digit stays.
    """
    has_long_number = re.search(r"\d,\d", answer)
    kept = answer
    for mark in PUNCTUATION:
        is_at_a_space = f" {mark}" in answer or f"{mark} " in answer
        kept = kept.replace(mark, "" if is_at_a_space or has_long_number else " ")
    return re.sub(r"\.(?!\d)", "", kept, count=MAX_FULL_STOPS)


def _vqa_score(answer: str, references: Sequence[str], i: int) -> float:
    if isinstance(references, str) or len(references) < 2:
        raise ValueError(f"references[{i}] is {references!r}, expected a list of two or more answers")
    answer, references = _on_one_line(answer), [_on_one_line(reference) for reference in references]
    if len(set(references)) > 1:
        answer, references = normalise_answer(answer), [normalise_answer(x) for x in references]
    matches = references.count(answer)
    # An annotator left out is one of those who agree, or of the others. Whole numbers, for exact figures.
    agreeing = matches * min(matches - 1, NUM_AGREEING)
    others = (len(references) - matches) * min(matches, NUM_AGREEING)
    return 100 * (agreeing + others) / (NUM_AGREEING * len(references))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _check_lengths(values: Sequence, others: Sequence, name: str) -> None:
    if not len(values) or len(values) != len(others):
        raise ValueError(
            f"expected at least one value and as many {name}, got {len(values)} and {len(others)}"
        )
