import pytest
from picture_files import save_pictures
from spoiling import HARMLESS
from video_sets import read_set, save_json

from coca_video.data.benchmarks.listing import Files
from coca_video.data.benchmarks.vqa import SETS
from coca_video.errors import InputError

(VQA,) = SETS
QUESTIONS, ANNOTATIONS = "v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"


def question(number: int, image: int = 42) -> dict:
    return {"question_id": number, "image_id": image, "question": f" Is it {number}, really?"}


def annotation(number: int, **changes) -> dict:
    answers = [{"answer": each, "answer_confidence": "yes", "answer_id": 1} for each in ("yes", "", "yes")]
    kinds = {"question_type": "is it", "answer_type": "yes/no", "multiple_choice_answer": "yes"}
    return {"question_id": number, "image_id": 42, "answers": answers, **kinds, **changes}


@pytest.fixture
def root(tmp_path):
    save_json(tmp_path / QUESTIONS, {"questions": [question(42001), question(42000), question(7000, 7)]})
    annotations = [annotation(number) for number in (7000, 42000, 42001)]
    save_json(tmp_path / ANNOTATIONS, {"annotations": annotations})
    save_pictures(tmp_path, "val2014/COCO_val2014_000000000042.jpg", "val2014/COCO_val2014_000000000007.jpg")
    return tmp_path


def test_questions_with_the_answers_of_all_annotators(root):
    listing = read_set(VQA, root, "val")
    assert [record.id for record in listing.records] == ["42001", "42000", "7000"]
    first = listing.records[0]
    assert first.text == "Is it 42001, really?" and first.answers == ["yes", "", "yes"]
    assert first.labels == {"answer_type": "yes/no", "question_type": "is it"}
    assert first.path.name == "COCO_val2014_000000000042.jpg"
    assert [path.name for path in listing.annotations] == [QUESTIONS, ANNOTATIONS]


def test_tests_have_no_answers(root):
    for split, name in (("test", "test2015"), ("test-dev", "test-dev2015")):
        save_json(root / f"v2_OpenEnded_mscoco_{name}_questions.json", {"questions": [question(1, 3)]})
        save_pictures(root, "test2015/COCO_test2015_000000000003.jpg")
        (record,) = read_set(VQA, root, split).records
        assert record.answers == [] and record.labels == {} and record.path.parent.name == "test2015"


def test_pictures_as_in_2017(root):
    for number in (7, 42):
        (root / f"val2014/COCO_val2014_{number:012d}.jpg").rename(root / f"{number:012d}.jpg")
    assert read_set(VQA, root, "val").missing == []


@pytest.mark.parametrize("spoil", HARMLESS)
def test_harmless_changes_change_nothing(root, spoil):
    before = read_set(VQA, root, "val")
    spoil(root / QUESTIONS)
    spoil(root / ANNOTATIONS)
    assert read_set(VQA, root, "val") == before


def test_missing_and_repeated(root):
    (root / "val2014/COCO_val2014_000000000007.jpg").unlink()
    save_json(root / QUESTIONS, {"questions": [question(42001), question(7000, 7), question(42001)]})
    listing = read_set(VQA, root, "val")
    assert listing.missing == ["7000"] and len(listing.records) == 1 and "1 listed twice" in listing.notes[0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (QUESTIONS, {"question": []}, "lacks 'questions'"),
        (QUESTIONS, {"questions": [{"question_id": 1}]}, "questions 0: lacks 'image_id'"),
        (QUESTIONS, {"questions": [question(1) | {"image_id": "x"}]}, "image_id: expected a whole number"),
        (
            QUESTIONS,
            {"questions": [question(1) | {"question": ""}]},
            "questions 0: question: expected a text",
        ),
        (ANNOTATIONS, {"annotations": [annotation(1)]}, "lacks the answers to 3 questions, such as 42001"),
        (
            ANNOTATIONS,
            {"annotations": [annotation(1, answers=None)]},
            "annotations 0: answers: expected a list",
        ),
        (ANNOTATIONS, {"annotations": [annotation(1, answers=["yes"])]}, "annotations 0: expected an object"),
        (
            ANNOTATIONS,
            {"annotations": [annotation(1, answers=[{"answer": 2}])]},
            "expected an answer, found 2",
        ),
        (
            ANNOTATIONS,
            {"annotations": [annotation(1, answer_type=2)]},
            "answer_type: expected a text, found 2",
        ),
    ],
)
def test_what_is_wrong_is_named(root, name, content, message):
    save_json(root / name, content)
    with pytest.raises(InputError, match=rf"{name}: .*{message}"):
        VQA.read(Files(root, root), "val")


def test_what_is_not_there(root, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(InputError, match=f"{empty}: none of the 3 .* COCO_val2014_000000000042.jpg"):
        VQA.read(Files(root, empty), "val")
    with pytest.raises(InputError, match="looked for v2_OpenEnded_mscoco_train2014_questions.json"):
        VQA.read(Files(root, root), "train")
    with pytest.raises(InputError, match="no split 'dev'; this set has train, val, test, test-dev"):
        VQA.read(Files(root, root), "dev")
    (root / ANNOTATIONS).unlink()
    with pytest.raises(InputError, match=f"looked for {ANNOTATIONS}"):
        VQA.read(Files(root, root), "val")
