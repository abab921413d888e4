"""MSRVTT-QA and MSVD-QA (Xu et al., ACM MM 2017): questions made from captions, each answered by one word.

    train_qa.json, val_qa.json, test_qa.json
        MSRVTT-QA   [{"answer": "couch", "category_id": 14, "id": 158581,
                      "question": "what are three people sitting on?", "video_id": 6513}]
        MSVD-QA     [{"answer": "dog", "id": 30933, "question": "what is running?", "video_id": 1201}]
    youtube_mapping.txt              of MSVD-QA, lines as: -4wsuPCjDBc_5_15 vid1
    videos/video6513.mp4             of MSRVTT-QA
    YouTubeClips/-4wsuPCjDBc_5_15.avi        of MSVD-QA; or vid1.avi, where there is no mapping

"video" may stand for "video_id", and hold the file's name; files may also be named qa_train.json and so on.
The label question_type is the question's first word, which is how the papers divide their results.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from coca_video.data.benchmarks.listing import Files, Listing, PublicSet, need_split, without_ending
from coca_video.data.benchmarks.video_texts import (
    annotation,
    need_id,
    need_text,
    optional_annotation,
    video_listing,
)
from coca_video.data.manifest import ClipRecord
from coca_video.data.tables import need_keys, read_json, read_text
from coca_video.errors import InputError

MSRVTT_SPLITS = {"train": 158581, "val": 12278, "test": 72821}
MSVD_SPLITS = {"train": 30933, "val": 6415, "test": 13157}
MSRVTT_TEST_TYPES = {"what": 49869, "who": 20385, "how": 1640, "when": 677, "where": 250}
MSVD_TEST_TYPES = {"what": 8149, "who": 4552, "how": 370, "when": 58, "where": 28}


def read_msrvtt(files: Files, split: str) -> Listing:
    """Questions on MSR-VTT's videos."""
    need_split(split, MSRVTT_SPLITS)
    path = _questions_file(files, split)
    listing = video_listing(_questions(path, _msrvtt_name), files, annotations=[path])
    listing.subsets = _sizes(MSRVTT_TEST_TYPES) if split == "test" else {}
    return listing


def read_msvd(files: Files, split: str) -> Listing:
    """Questions on MSVD's clips."""
    need_split(split, MSVD_SPLITS)
    path = _questions_file(files, split)
    annotations, names, hint = [path], None, "; files named by YouTube id need youtube_mapping.txt"
    if mapping := optional_annotation(files, "youtube_mapping.txt"):
        annotations, names, hint = [path, mapping], _read_mapping(mapping), ""
    records = _questions(path, partial(_msvd_name, names=names))
    listing = video_listing(records, files, annotations=annotations, hint=hint)
    listing.subsets = _sizes(MSVD_TEST_TYPES) if split == "test" else {}
    return listing


def _questions_file(files: Files, split: str) -> Path:
    return annotation(files, f"{split}_qa.json", f"qa_{split}.json")


def _questions(path: Path, name_of: Callable[..., str]) -> Iterator[ClipRecord]:
    """name_of: the video's name from what the file calls it, and where it does."""
    for number, entry in enumerate(read_json(path, list)):
        where = f"{path}: entry {number}"
        need_keys(entry, ("question", "answer"), where=where)
        key = "video" if "video" in entry else "video_id"
        video = need_id(need_keys(entry, (key,), where=where)[key], where=where)
        question = need_text(entry["question"], where=where)
        yield ClipRecord(
            Path(name_of(without_ending(video), where=where)),
            question,
            id=need_id(entry.get("id", entry.get("question_id", number)), where=where),
            answers=[_need_answer(entry["answer"], where=where)],
            labels={"question_type": question.partition(" ")[0].lower()},
        )


def _need_answer(value: object, *, where: str) -> str:
    if answer := need_text(value, where=where):
        return answer
    raise InputError(f"{where}: has no answer")


def _msrvtt_name(video: str, *, where: str) -> str:
    return f"video{video}" if video.isdecimal() else video


def _msvd_name(video: str, *, where: str, names: dict[str, str] | None) -> str:
    """names: of the files, by "vid1"; None where there is no mapping."""
    number = video.removeprefix("video").removeprefix("vid")
    if not number.isdecimal():
        return video
    if names is None:
        return f"vid{number}"
    if f"vid{number}" not in names:
        raise InputError(f"{where}: youtube_mapping.txt has no vid{number}")
    return names[f"vid{number}"]


def _read_mapping(path: Path) -> dict[str, str]:
    names = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if words := line.split():
            if len(words) != 2:
                raise InputError(f"{path}:{number}: expected a clip's name and its id, found {line[:60]!r}")
            names[words[1]] = words[0]
    return names


def _sizes(types: dict[str, int]) -> dict[str, int]:
    return {f"question_type={name}": size for name, size in types.items()}


SETS = (
    PublicSet(
        "msrvtt_qa",
        "MSRVTT-QA",
        "train_qa.json, val_qa.json, test_qa.json, videos video<n>.mp4",
        MSRVTT_SPLITS,
        read_msrvtt,
    ),
    PublicSet(
        "msvd_qa",
        "MSVD-QA",
        "train_qa.json, val_qa.json, test_qa.json, youtube_mapping.txt, videos <YouTube id>_<s>_<e>.avi",
        MSVD_SPLITS,
        read_msvd,
    ),
)
