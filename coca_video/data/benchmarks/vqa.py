"""VQA v2 (Goyal et al. 2017): open questions about pictures of COCO, each answered by ten people.

    v2_OpenEnded_mscoco_val2014_questions.json
        {"questions": [{"question_id": 262148000, "image_id": 262148, "question": "Where is he?"}, ...]}
    v2_mscoco_val2014_annotations.json
        {"annotations": [{"question_id": 262148000, "image_id": 262148, "question_type": "none of the above",
                          "answer_type": "other", "answers": [{"answer": "down", ...}, ...]}, ...]}
    val2014/COCO_val2014_000000262148.jpg, or 000000262148.jpg

The answers of `test` and `test-dev` are the publisher's secret: their examples have none.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coca_video.data.benchmarks.coco_captions import find_coco_picture
from coca_video.data.benchmarks.listing import Files, Listing, MediaIndex, PublicSet, need_split
from coca_video.data.benchmarks.picture_sets import (
    listing_of,
    need_id,
    need_list,
    need_number,
    need_text,
)
from coca_video.data.manifest import ClipRecord
from coca_video.data.pictures import PICTURE_SUFFIXES
from coca_video.data.tables import need_keys, read_json
from coca_video.errors import InputError

SPLITS = {"train": 443_757, "val": 214_354, "test": 447_793, "test-dev": 107_394}
# Of each split: what the question file calls it, and what the pictures' names do.
IN_FILE_NAMES = {
    "train": ("train2014", "train2014"),
    "val": ("val2014", "val2014"),
    "test": ("test2015", "test2015"),
    "test-dev": ("test-dev2015", "test2015"),
}
WITH_ANSWERS = ("train", "val")


def read(files: Files, split: str) -> Listing:
    need_split(split, SPLITS)
    in_questions, in_pictures = IN_FILE_NAMES[split]
    questions = _annotation(files, f"v2_OpenEnded_mscoco_{in_questions}_questions.json")
    used, answers = [questions], {}
    if split in WITH_ANSWERS:
        used.append(_annotation(files, f"v2_mscoco_{in_questions}_annotations.json"))
        answers = _read_answers(used[1])
    records = [
        _record(question, where, answers, prefix=f"COCO_{in_pictures}_")
        for question, where in _entries(questions, "questions", ["question_id", "image_id", "question"])
    ]
    if split in WITH_ANSWERS and (lacking := [record.id for record in records if not record.answers]):
        raise InputError(f"{used[1]}: lacks the answers to {len(lacking)} questions, such as {lacking[0]}")
    media = MediaIndex(files.media, suffixes=PICTURE_SUFFIXES)
    return listing_of(
        records,
        lambda record: find_coco_picture(media, record.path.name),
        files=files,
        annotations=used,
        example=lambda record: record.path.name,
    )


def _annotation(files: Files, name: str) -> Path:
    return files.annotation(name, f"*/{name}", f"**/{name}")


def _entries(path: Path, key: str, keys: list[str]) -> Iterator[tuple[dict, str]]:
    """The objects of a list under `key`, each with `keys`, and how messages about it begin."""
    content = need_keys(read_json(path), [key], where=str(path))[key]
    for number, entry in enumerate(need_list(content, where=f"{path}: {key}")):
        where = f"{path}: {key} {number}"
        yield need_keys(entry, keys, where=where), where


def _read_answers(path: Path) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Answers and labels by question."""
    found = {}
    for entry, where in _entries(path, "annotations", ["question_id", "answers"]):
        answers = [
            _answer(answer, where=where) for answer in need_list(entry["answers"], where=f"{where}: answers")
        ]
        labels = {
            name: need_text(entry[name], where=f"{where}: {name}")
            for name in ("answer_type", "question_type")
            if name in entry
        }
        found[need_id(entry["question_id"], where=where)] = answers, labels
    return found


def _answer(entry: Any, *, where: str) -> str:
    """As it is, even if empty: each annotator counts."""
    answer = need_keys(entry, ["answer"], where=where)["answer"]
    if not isinstance(answer, str):
        raise InputError(f"{where}: expected an answer, found {answer!r}")
    return answer


def _record(question: dict, where: str, answers: dict, *, prefix: str) -> ClipRecord:
    id = need_id(question["question_id"], where=where)
    picture = f"{prefix}{need_number(question['image_id'], where=f'{where}: image_id'):012d}.jpg"
    text = need_text(question["question"], where=f"{where}: question")
    its_answers, labels = answers.get(id, ([], {}))
    return ClipRecord(Path(picture), text, labels, id, answers=its_answers)


SETS = (
    PublicSet(
        name="vqa_v2",
        title="VQA v2",
        layout="v2_OpenEnded_mscoco_*_questions.json, v2_mscoco_*_annotations.json; folders of pictures",
        splits=SPLITS,
        read=read,
    ),
)
