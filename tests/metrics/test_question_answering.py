import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coca_video.metrics.question_answering import (
    CONTRACTIONS,
    accuracy,
    by_group,
    consistency,
    exact_accuracy,
    nlvr2_sentence,
    normalise_answer,
    vqa_accuracy,
)

EXAMPLES = settings(max_examples=60, deadline=None, derandomize=True)


def vqa(answer: str, *references: str) -> float:
    return vqa_accuracy([answer], [references])[0]


@pytest.mark.parametrize("matches, expected", [(0, 0), (1, 30), (2, 60), (3, 90), (4, 100), (9, 100)])
def test_how_many_of_ten_annotators_agree(matches, expected):
    assert vqa("cat", *["cat"] * matches, *["dog"] * (10 - matches)) == expected


def test_ten_equal_references():
    assert vqa("cat", *["cat"] * 10) == 100
    assert vqa("dog", *["cat"] * 10) == 0


def test_mean_and_each_question():
    references = [["cat"] + ["dog"] * 9, ["cat"] * 2 + ["dog"] * 8]
    assert vqa_accuracy(["cat", "cat"], references) == (45, [30, 60])


@pytest.mark.parametrize(
    "answer, normalised",
    [
        ("two", "2"),
        ("2", "2"),
        ("none", "0"),
        ("Ten", "10"),
        ("eleven", "eleven"),
        ("the cat", "cat"),
        ("An apple on a table", "apple on table"),
        ("the", ""),
        ("dont", "don't"),
        ("don't", "don't"),
        ("I'dve", "i'dve"),  # the table's entry has a capital, which no normalised word has
        ("10,000", "10000"),
        ("10,000 t-shirts", "10000 tshirts"),  # a comma between digits removes all marks
        ("1.5", "1.5"),
        (".5", ".5"),
        ("5.", "5"),
        ("no. 5", "no 5"),
        ("u.s.a.", "usa"),
        ("t-shirt", "t shirt"),
        ("t- shirt", "t shirt"),
        ("black-and-white", "black and white"),
        ("black-white - grey", "blackwhite grey"),  # one mark beside a space removes all of its kind
        ("x/y", "x y"),
        ("yes!", "yes"),
        ("red, green", "red green"),
        ("red,green", "red green"),
        ("what?!", "what"),
        ("John's", "john's"),
        ("3:45", "3:45"),  # a colon is no punctuation here
        ("5%", "5%"),
        ("YES", "yes"),
        ("hot\ndog", "hot dog"),
        ("\thot\tdog\n", "hot dog"),
        ("hot   dog", "hot dog"),
        ("", ""),
        ("x" + "." * 33, "x."),  # no more than 32 full stops
    ],
)
def test_normalise_answer(answer, normalised):
    assert normalise_answer(answer) == normalised


def test_contractions():
    assert len(CONTRACTIONS) == 120
    assert CONTRACTIONS["couldnt've"] == "couldn't've"
    for written, meant in CONTRACTIONS.items():
        if written != "somebody'd":  # the table takes its apostrophe away
            assert written.replace("'", "") == meant.replace("'", "") and "'" in meant


@pytest.mark.parametrize(
    "answer, reference",
    [
        ("2", "two"),
        ("cat", "the cat"),
        ("The Cat.", "cat"),
        ("dont", "don't"),
        ("10000", "10,000"),
        ("t shirt", "t-shirt"),
        ("hot\tdog", "hot dog"),
    ],
)
def test_answers_are_normalised_where_annotators_differ(answer, reference):
    assert vqa(answer, *[reference] * 4, *["other"] * 6) == 100
    assert vqa(reference, *[answer] * 4, *["other"] * 6) == 100


def test_answers_are_compared_as_they_are_where_annotators_agree():
    assert vqa("two", *["two"] * 10) == 100
    assert vqa("2", *["two"] * 10) == 0
    assert vqa("Cat", *["cat"] * 10) == 0
    assert vqa(" hot\ndog\t", *["hot dog"] * 10) == 100
    assert vqa("2", *["two"] * 9, "2") == 100
    assert vqa("cat", *["cat"] * 5, *["cat "] * 5) == 100


def test_fewer_than_ten_references():
    assert vqa("cat", "cat", "cat", "cat", "cat") == 100
    assert vqa("cat", "cat", "cat", "cat") == pytest.approx(100 * 2 / 3)
    assert vqa("cat", "cat", "cat") == pytest.approx(100 / 3)
    assert vqa("cat", "cat", "dog") == pytest.approx(100 * (0 + 1 / 3) / 2)


@EXAMPLES
@given(st.sampled_from("abc"), st.lists(st.sampled_from("abcd"), min_size=2, max_size=12))
def test_vqa_accuracy_equals_leaving_out_one_by_one(answer, references):
    words = {"a": "ash", "b": "box", "c": "cat", "d": "dog"}
    shares = []
    for i in range(len(references)):
        others = references[:i] + references[i + 1 :]
        shares.append(min(sum(other == answer for other in others) / 3, 1))
    expected = 100 * sum(shares) / len(shares)
    assert vqa(words[answer], *[words[letter] for letter in references]) == pytest.approx(expected)


@EXAMPLES
@given(st.text(alphabet="aA1.,-/ \n\t'?t", max_size=12))
def test_normalised_answers_hold_no_marks(text):
    normalised = normalise_answer(text)
    assert not set(normalised) & set(",-/?\n\tA")
    assert normalised == " ".join(normalised.split())


def test_exact_accuracy():
    assert exact_accuracy(["Cat ", "two", "a dog"], ["cat", "2", "dog"]) == (
        pytest.approx(100 / 3),
        [100, 0, 0],
    )


def test_by_group():
    scores = by_group([30, 60, 100, 0], ["number", "other", "number", "yes/no"])
    assert scores == {"number": 65, "other": 60, "yes/no": 0}
    assert list(scores) == ["number", "other", "yes/no"]


def test_accuracy_and_consistency():
    is_right = [True, True, True, False, True]
    groups = ["a", "b", "a", "b", "c"]
    assert accuracy(is_right) == 80
    assert consistency(is_right, groups) == pytest.approx(200 / 3)


def test_examples_of_a_sentence_differ_in_their_pair():
    identifiers = ["dev-850-0-0", "dev-850-1-0", "dev-850-0-1", "test1-850-0-0"]
    sentences = [nlvr2_sentence(identifier) for identifier in identifiers]
    assert sentences == ["dev-850-0", "dev-850-0", "dev-850-1", "test1-850-0"]
    assert consistency([True, False, True, True], sentences) == pytest.approx(200 / 3)
    with pytest.raises(ValueError, match="'dev-850-0', expected split-set-pair-sentence"):
        nlvr2_sentence("dev-850-0")


@pytest.mark.parametrize("metric", [vqa_accuracy, exact_accuracy, by_group, consistency])
def test_what_does_not_pair_is_an_error(metric):
    with pytest.raises(ValueError, match="at least one value .* got 0 and 0"):
        metric([], [])
    with pytest.raises(ValueError, match="as many (groups|references|groups of references), got 2 and 1"):
        metric(["a", "b"], [["a"]])


def test_no_answers_are_an_error():
    with pytest.raises(ValueError, match="at least one answer, got none"):
        accuracy([])


def test_references_of_the_wrong_kind_are_an_error():
    with pytest.raises(
        ValueError, match=r"references\[1\] is \['a'\], expected a list of two or more answers"
    ):
        vqa_accuracy(["a", "b"], [["a", "a"], ["a"]])
    with pytest.raises(ValueError, match=r"references\[0\] is 'aaaa', expected a list"):
        vqa_accuracy(["a"], ["aaaa"])
    with pytest.raises(ValueError, match=r"references\[0\] is \['a'\], expected one answer"):
        exact_accuracy(["a"], [["a"]])
