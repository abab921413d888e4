"""A model on a data set: what any evaluation does, the emoji benchmark's like those of the public sets."""

import csv
import io
import json
import platform
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import torch
import torchvision
from PIL.Image import Image

from coca_video import __version__
from coca_video.data.benchmarks.card import Card, file_hash, read_card
from coca_video.data.examples import Examples
from coca_video.data.manifest import ClipRecord, belongs, read_manifest
from coca_video.data.views import ViewsConfig
from coca_video.errors import InputError
from coca_video.evaluation.caption_quality import CaptionConfig, coco_results, judge_captions
from coca_video.evaluation.confusion_picture import confusion_picture
from coca_video.evaluation.features import EMBEDDINGS, MakeFeatures, features_of
from coca_video.evaluation.parts import LoadingConfig, Maker, Rows, make_in_parts, parts_key
from coca_video.evaluation.retrieval import RetrievalConfig, retrieve
from coca_video.evaluation.selection import Evaluated
from coca_video.evaluation.subject import Subject
from coca_video.evaluation.task_head import (
    PREDICTIONS,
    HeadConfig,
    MakePredictions,
    check_askable,
    configured,
    head_task,
    judge_head,
)
from coca_video.evaluation.zero_shot import (
    ClassificationConfig,
    Classified,
    class_names,
    classify,
    resolve_templates,
)
from coca_video.files import write_whole
from coca_video.tasks.task import Task

FORMAT = 1  # of result.json
NEARLY_ALL_TEXTS = 0.99  # of those listed: benchmarks of COCO leave out the few sixth and seventh ones
WRITTEN = (
    "result.json",
    "predictions.jsonl",
    "captions.json",
    "answers.json",
    "per_class.csv",
    "confusion.png",
)
ZERO_SHOT = ("classification", "retrieval", "captioning")  # what CoCa can do without a head


class Reading(str, Enum):
    """How a clip's embedding is made of its frames."""

    video = "video"  # all frames together, as the model's adaptor reads them (VideoCoCa)
    mean_of_frames = "mean_of_frames"  # mean of the frames' embeddings as pictures (CoCa)
    first_frame = "first_frame"


@dataclass
class BenchmarkConfig:
    manifest: str  # as `coca-video prepare` writes it, or one's own
    protocol: str = ""  # whose settings these are
    reading: Reading | None = None  # what results lead with, all being in them; None: the model's own first
    views: ViewsConfig = field(default_factory=ViewsConfig)
    loading: LoadingConfig = field(default_factory=LoadingConfig)
    classification: ClassificationConfig | None = None
    retrieval: RetrievalConfig | None = None
    captioning: CaptionConfig | None = None
    head: HeadConfig | None = None  # the task that the checkpoint has learned
    token_cache: str | None = None  # a folder: later evaluations with the same image encoder need not encode

    def __post_init__(self) -> None:
        if not self.tasks():
            raise ValueError("classification, retrieval, captioning or head must be given, got none of them")
        if self.tasks() == ["head"] and self.reading not in (None, Reading.video):
            raise ValueError(f"reading must be video: a head sees all frames, got {self.reading.value}")
        if self.views.num_views > 1 and (self.captioning or self.token_cache):
            what = "captioning" if self.captioning else "token_cache"
            raise ValueError(f"{what} needs a single view: num_clips and num_crops must be 1")

    def tasks(self) -> list[str]:
        """By the names that results have for them."""
        return [name for name in (*ZERO_SHOT, "head") if getattr(self, name)]

    def subsets(self) -> list[str]:
        """Of all tasks."""
        found = [self.classification.label] if self.classification else []
        return found + [task.subset for task in (self.retrieval, self.captioning, self.head) if task]


@dataclass
class Outcome:
    """An evaluation's result and what else it writes."""

    result: dict
    predictions: list[dict]  # one a readable clip
    classified: Classified | None
    captions: list[dict] | None  # in COCO's results format
    answers: list[dict] | None = None  # in VQA's


def evaluate_benchmark(subject: Subject, config: BenchmarkConfig, *, output: Path) -> Outcome | None:
    """Evaluates, resuming what an interrupted run has left under `output`, and writes the outcome there.

    In a distributed run all processes call; the first one returns the outcome, the others None.
    Raises InputError if the model was trained on the very clips to be evaluated, and for unreadable data.
    """
    manifest = Path(config.manifest)
    _check(subject, config)
    records, card = read_manifest(manifest), read_card(manifest)
    digest = file_hash(manifest)  # now, as hours later it may be another
    _check_records(records, card, config, subject.task)
    records = [record for record in records if any(belongs(record.labels, s) for s in config.subsets())]
    parts = _parts_folder(subject, config, output, digest=digest)
    examples, makers = _examples(subject, records, config), _makers(subject, config)
    made = make_in_parts(examples, makers, loading=config.loading, folder=parts)
    if made is None:
        return None
    evaluated = Evaluated(records, card, features_of(made), made.rows.get(PREDICTIONS, Rows()))
    outcome = _judged(subject, evaluated, config, digest=digest)
    write_outcome(outcome, output)
    _remove_parts(parts)
    return outcome


def write_outcome(outcome: Outcome, folder: Path) -> None:
    """result.json last: where it is, the rest is, and nothing of an earlier evaluation."""
    for name in WRITTEN:
        (folder / name).unlink(missing_ok=True)
    write_whole(folder / "predictions.jsonl", "".join(map(_as_json, outcome.predictions)))
    if outcome.captions is not None:
        write_whole(folder / "captions.json", _as_json(outcome.captions, indent=0))
    if outcome.answers is not None:
        write_whole(folder / "answers.json", _as_json(outcome.answers, indent=0))
    if outcome.classified:
        write_whole(folder / "per_class.csv", _class_table(outcome.classified))
        _save(
            confusion_picture(outcome.classified.confusion, outcome.classified.classes),
            folder / "confusion.png",
        )
    write_whole(folder / "result.json", _as_json(outcome.result, indent=1))


def _as_json(value: Any, *, indent: int | None = None) -> str:
    """One line, or several; escapes for bytes of a file's name that are no UTF-8, and nothing else."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n"


def check_not_seen(manifest: str, trained_on: list[str], *, who: str) -> None:
    """By name: a data set may have moved, and a relative path is another place from another folder."""
    if Path(manifest).name in {Path(source).name for source in trained_on}:
        raise InputError(f"{who} was trained on {Path(manifest)}, the clips to be evaluated")


def check_records(config: BenchmarkConfig, task: Task | None = None) -> None:
    """Whether the manifest and its card are such that they can be evaluated; no clip is read.

    task: whose head is to be evaluated, where the settings want that.
    """
    _check_records(read_manifest(config.manifest), read_card(Path(config.manifest)), config, task)


def _check(subject: Subject, config: BenchmarkConfig) -> None:
    """What can be known to be wrong before anything is read or written."""
    about = subject.describe()
    check_not_seen(config.manifest, about["trained_on"], who=f"{about['checkpoint']}:")
    if config.reading and config.reading.value not in subject.readings:
        allowed = f"allowed are {', '.join(subject.readings)}"
        raise InputError(f"evaluate.reading: {about['checkpoint']} has no {config.reading.value}; {allowed}")
    if config.captioning and not subject.writes_captions:
        raise InputError(f"evaluate.captioning: {about['checkpoint']} writes no captions")
    if config.head:
        _task(subject, config)
    if config.classification:
        resolve_templates(config.classification.templates)
    for position in config.views.crop_positions():  # a transform may not crop there
        subject.prepare(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), position)


def _check_records(
    records: list[ClipRecord], card: Card | None, config: BenchmarkConfig, task: Task | None
) -> None:
    """What can be known to be wrong before anything is encoded."""
    for subset in config.subsets():
        if not any(belongs(record.labels, subset) for record in records):
            raise InputError(f"{config.manifest}: no example is in {subset!r}")
    if config.classification:
        class_names(records, card, config.classification.label)
    if config.head and task:
        configured(task, config.head, num_views=config.views.num_views)
        check_askable(task, records, config.head.subset, manifest=config.manifest)


def _task(subject: Subject, config: BenchmarkConfig) -> Task:
    return head_task(subject, config.head, num_views=config.views.num_views)


def _examples(subject: Subject, records: list[ClipRecord], config: BenchmarkConfig) -> Examples:
    size = subject.protocol()["image_size"] if config.loading.reduced_decoding else None
    return Examples(records, config.views, subject.prepare, shorter_side=size, cache=subject.cache)


def _makers(subject: Subject, config: BenchmarkConfig) -> dict[str, Maker]:
    makers, num_views = {}, config.views.num_views
    if config.tasks() != ["head"]:
        decoding = config.captioning.decoding if config.captioning else None
        makers[EMBEDDINGS] = MakeFeatures(subject, num_views, decoding)
    if config.head:
        task = _task(subject, config)
        makers[PREDICTIONS] = MakePredictions(subject, task, config.head.subset, num_views)
    return makers


def _parts_folder(subject: Subject, config: BenchmarkConfig, output: Path, *, digest: str) -> Path:
    """Another one for whatever would make other features; what files hold is each part's own affair."""
    settings = asdict(config) | {
        "model": subject.describe() | subject.protocol(),
        "manifest": digest,
        "versions": _versions(),
        "loading": asdict(config.loading) | {"num_workers": None},
    }
    return output / "parts" / parts_key(settings)


def _remove_parts(parts: Path) -> None:
    """Not those of another evaluation, which may be under way or to be continued."""
    shutil.rmtree(parts)
    if not any(parts.parent.iterdir()):
        parts.parent.rmdir()


def _judged(subject: Subject, evaluated: Evaluated, config: BenchmarkConfig, *, digest: str) -> Outcome:
    lead = config.reading.value if config.reading else subject.readings[0]
    tasks, listed, classified, captions, answers = {}, [], None, None, None
    if config.classification:
        classified = classify(subject, evaluated, config.classification, lead=lead)
        tasks["classification"] = classified.figures
        listed.append(classified.listed)
    if config.retrieval:
        tasks["retrieval"], of_clips = retrieve(subject, evaluated, config.retrieval, lead=lead)
        listed.append(of_clips)
    if config.captioning:
        tasks["captioning"], of_clips = judge_captions(evaluated, config.captioning)
        listed.append(of_clips)
        texts = [of_clips[i]["caption"] for i in evaluated.features.indices]
        captions = coco_results([evaluated.records[i] for i in evaluated.features.indices], texts)
    if config.head:
        head = judge_head(_task(subject, config), evaluated, config.head)
        tasks["head"], answers = head.entry, head.answers
        listed.append(head.listed)
        classified = classified or head.classified
    result = _result(subject, evaluated, config, lead) | {"manifest_sha256": digest, "tasks": tasks}
    reasons = shortfalls(result)
    result["official"], result["not_official_because"] = not reasons, reasons
    return Outcome(result, list(_predictions(evaluated, listed)), classified, captions, answers)


def _result(subject: Subject, evaluated: Evaluated, config: BenchmarkConfig, lead: str) -> dict:
    """What was evaluated, and how."""
    card, features, manifest = evaluated.card, evaluated.features, Path(config.manifest)
    return {
        "format": FORMAT,
        "dataset": card.dataset if card else manifest.stem,
        "title": card.title if card else manifest.stem,
        "split": card.split if card else "",
        "num_expected": card.num_expected if card else None,
        "num_evaluated": len(features.indices),
        "num_missing": len(card.missing) if card else 0,
        "num_failed": len(features.failed),
        "missing": card.missing if card else [],
        "failed": [_failure(evaluated.records[each.index], each) for each in features.failed],
        "notes": card.notes if card else [],
        "manifest": str(manifest),
        "prepared_sha256": card.manifest_sha256 if card else "",
        "annotations": card.annotations if card else {},
        "model": subject.describe(),
        "protocol": {
            "name": config.protocol,
            "reading": lead,
            **asdict(config.views),
            **subject.protocol(),
            "reduced_decoding": config.loading.reduced_decoding,
        },
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    return {
        "coca_video": __version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
    }


def _failure(record: ClipRecord, failed) -> dict:
    return {"id": record.name, "path": str(record.path), "kind": failed.kind, "reason": failed.reason}


def is_complete(result: dict) -> bool:
    """Whether nothing that could be expected is absent."""
    return not _gaps(result)


def shortfalls(result: dict) -> list[str]:
    """Why a result must not be called the benchmark's own; empty if it may."""
    reasons = _gaps(result)
    unknown = [name for name, task in result["tasks"].items() if task["num_expected"] is None]
    if unknown:
        reasons.append(f"no official number of examples is known for {', '.join(unknown)}")
    if result["prepared_sha256"] not in ("", result["manifest_sha256"]):
        reasons.append("the manifest is not the one that its card was written for")
    if reason := _fewer_texts(result["tasks"].get("retrieval", {})):
        reasons.append(reason)
    if reason := result["tasks"].get("head", {}).get("not_judged"):
        reasons.append(f"head: {reason}")
    protocol = result["protocol"]
    for name in ("reduced_decoding", "merged_per_block"):
        if protocol.get(name):
            reasons.append(f"{name} is an approximation")
    return reasons


def _fewer_texts(retrieval: dict) -> str | None:
    """Among fewer texts, or longer ones, it is easier to be right."""
    if not retrieval:
        return None
    used, listed = retrieval["num_texts"], retrieval["num_texts_listed"]
    if used >= NEARLY_ALL_TEXTS * listed:
        return None
    return f"retrieval: {used:,} texts of {listed:,} (texts={retrieval['texts']})"


def _gaps(result: dict) -> list[str]:
    reasons = []
    if result["num_missing"]:
        reasons.append(f"{result['num_missing']:,} listed examples are not on this disk")
    if result["num_failed"]:
        reasons.append(f"{result['num_failed']:,} examples could not be read")
    for name, task in result["tasks"].items():
        expected, found = task["num_expected"], task["num_evaluated"]
        if expected is not None and found != expected:
            reasons.append(f"{name}: {found:,} examples evaluated, the official number is {expected:,}")
    return reasons


def _predictions(evaluated: Evaluated, listed: list[dict[int, dict]]) -> Iterable[dict]:
    """One dictionary a readable clip, of all tasks; what a task does not say of a clip is absent."""
    for i in evaluated.features.indices:
        record = evaluated.records[i]
        about = {"id": record.name, "path": str(record.path), "text": record.text, "labels": record.labels}
        if record.second_path:
            about["second_path"] = str(record.second_path)
        if record.answers:
            about["answers"] = record.answers
        yield about | {key: value for task in listed for key, value in task.get(i, {}).items()}


def _class_table(classified: Classified) -> str:
    """CSV: a line a class, the most often mistaken first."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["class", "clips", "top1", "most_often_taken_for", "times"])
    counts = classified.confusion.clone()
    counts.fill_diagonal_(0)
    times, taken_for = counts.max(dim=1)
    rows = zip(
        classified.classes, classified.support, classified.accuracy, taken_for.tolist(), times.tolist()
    )
    for name, support, accuracy, other, number in sorted(rows, key=lambda row: (row[1] == 0, row[2])):
        shown = f"{accuracy:.2f}" if support else ""
        writer.writerow([name, support, shown, classified.classes[other] if number else "", number])
    return table.getvalue().encode("utf-8", "backslashreplace").decode("utf-8")


def _save(picture: Image, path: Path) -> None:
    partial = path.with_name(f".{path.name}")
    picture.save(partial)
    partial.replace(path)
