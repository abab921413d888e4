"""What a model has learned beside CoCa's own losses: its head's predictions, and how good they are."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from itertools import chain, repeat

import torch
from einops import rearrange
from torch import Tensor

from coca_video.data.benchmarks.card import Card
from coca_video.data.examples import Example
from coca_video.data.manifest import ClipRecord, belongs
from coca_video.data.samples import pad_frames
from coca_video.errors import InputError
from coca_video.evaluation.caption_quality import id_of
from coca_video.evaluation.embedding import image_tokens
from coca_video.evaluation.parts import Rows, check_numbers
from coca_video.evaluation.selection import Evaluated, Selection
from coca_video.evaluation.subject import VIDEO, CocaSubject, Subject
from coca_video.evaluation.zero_shot import Classified, Views
from coca_video.metrics.classification import class_accuracy, confusion
from coca_video.tasks.choice import Choice
from coca_video.tasks.question_answering import QuestionAnswering
from coca_video.tasks.task import Judged, Task, TaskInputs, check_pictures

PREDICTIONS = "predictions"
SECRET = "its questions have no answers; a publisher's test server judges them (answers.json)"


@dataclass
class HeadConfig:
    """Of the checkpoint's own task. None: as it was trained."""

    subset: str = ""  # see selection.Evaluated.select
    open_ended: bool | None = None  # question answering: answers are written, not chosen
    only_present: bool | None = None  # classification: among the classes that occur in what is evaluated


@dataclass
class HeadResult:
    entry: dict  # of the result
    listed: dict[int, dict]  # by number of the record
    classified: Classified | None  # where there are classes to be confused
    answers: list[dict] | None  # to questions, in VQA's results format


def head_task(subject: Subject, config: HeadConfig, *, num_views: int) -> Task:
    """The subject's task as it is to be evaluated; raises InputError for a subject without one."""
    if subject.task is None:
        checkpoint = subject.describe()["checkpoint"]
        raise InputError(f"evaluate.head: {checkpoint} has learned no task, so that it has no head")
    return configured(subject.task, config, num_views=num_views)


def configured(task: Task, config: HeadConfig, *, num_views: int) -> Task:
    """With the settings that evaluations may change; raises InputError for those that it does not have."""
    changes = {name: value for name, value in vars(config).items() if name != "subset" and value is not None}
    if unknown := changes.keys() - {each.name for each in fields(task)}:
        raise InputError(f"evaluate.head.{min(unknown)}: the task {task.name} has no such setting")
    task = replace(task, **changes)
    if num_views > 1 and _writes(task):
        raise InputError("evaluate.head.open_ended needs a single view: num_clips and num_crops must be 1")
    return task


def check_askable(task: Task, records: Iterable[ClipRecord], subset: str, *, manifest: str) -> None:
    """Raises InputError, naming the manifest and the record, for the first that the task cannot ask about."""
    chosen = [record for record in records if belongs(record.labels, subset)]
    is_answered = any(record.answers for record in chosen)
    for record in chosen:
        try:
            check_pictures(task, record)
            if is_answered or not isinstance(task, QuestionAnswering):
                task.ask(record, None)
        except InputError as error:
            raise InputError(f"{manifest}: {record.name}: {error}") from error


@dataclass(frozen=True)
class MakePredictions:
    """In `tensors` the head's predictions, 'b views ...'; for questions in `texts` the answers."""

    subject: CocaSubject
    task: Task
    subset: str  # the others' predictions have no meaning
    num_views: int

    @torch.inference_mode()
    def __call__(self, examples: list[Example], records: list[ClipRecord]) -> Rows:
        model, inputs = self.subject.checkpoint.model, self._inputs(examples, records)
        if _writes(self.task):
            return Rows(texts={VIDEO: self.task.write(model, inputs, self.subject.checkpoint.tokenizer)})
        predictions = self.task.predict(model, inputs).float().cpu()
        check_numbers({VIDEO: predictions}, records, what=PREDICTIONS)
        predictions = rearrange(predictions, "(b v) ... -> b v ...", v=self.num_views)
        if isinstance(self.task, QuestionAnswering):  # thousands of classes: only the best is kept
            return Rows(texts={VIDEO: self.task.choose(predictions)})
        return Rows({VIDEO: predictions})

    def _inputs(self, examples: list[Example], records: list[ClipRecord]) -> TaskInputs:
        """A row for each view."""
        checkpoint, device = self.subject.checkpoint, self.subject.device
        clips = list(chain.from_iterable(example.views for example in examples))
        if not self.task.blind:
            clips = self.subject.through_cache(clips, [example.origin for example in examples])
        content, frame_mask = (x.to(device) for x in pad_frames(clips))
        tokens = self.task.tokens(
            checkpoint.model, frame_mask, lambda: image_tokens(checkpoint, content, frame_mask)
        )
        return TaskInputs(tokens, frame_mask, *self._texts(records), torch.zeros(len(clips), device=device))

    def _texts(self, records: list[ClipRecord]) -> Iterable[Tensor]:
        """ids, text_mask and prompt_mask of the questions, once for each view; nothing follows them."""
        asked = [
            self.task.question(record) if belongs(record.labels, self.subset) else "" for record in records
        ]
        questions = [question for each in asked for question in repeat(each, self.num_views)]
        context = self.subject.checkpoint.model.config.text.context_length
        encode = self.subject.checkpoint.tokenizer.encode_prompted
        encoded = encode(questions, [""] * len(questions), max_length=context)
        return [x.to(self.subject.device) for x in encoded]


def judge_head(task: Task, evaluated: Evaluated, config: HeadConfig) -> HeadResult:
    """What is said of the predictions of all records in the subset."""
    chosen = evaluated.select(config.subset)
    answers = None
    if isinstance(task, QuestionAnswering):
        texts = evaluated.predictions.texts[VIDEO]
        answers = [texts[row] for row in chosen.rows]
        judged = _judged_answers(task, chosen, answers)
    else:
        judged = task.judge(chosen.records, evaluated.predictions.tensors[VIDEO][chosen.rows])
    listed = dict(zip(chosen.indices, judged.listed))
    entry = chosen.counts() | _about(task) | {"figures": {VIDEO: judged.figures}}
    if answers is not None and not judged.figures:
        entry["not_judged"] = SECRET
    classified = _classified(task, judged, evaluated.card, entry, listed)
    return HeadResult(entry, listed, classified, answers and _vqa_results(chosen.records, answers))


def _writes(task: Task) -> bool:
    return isinstance(task, QuestionAnswering) and task.open_ended


def _judged_answers(task: QuestionAnswering, chosen: Selection, answers: list[str]) -> Judged:
    """Without figures where the publisher keeps the answers for itself."""
    if any(record.answers for record in chosen.records):
        return task.judge_texts(chosen.records, answers)
    return Judged({}, [{"answer": answer} for answer in answers])


def _about(task: Task) -> dict:
    """What a result says of the task."""
    settings = task.describe()
    name, classes = settings.pop("name"), settings.pop("classes", None)
    about = {"task": name, "settings": settings}
    if classes:
        about["num_classes"] = len(classes)
    if isinstance(task, QuestionAnswering):
        about["answers"] = "written" if task.open_ended else "chosen"
    if isinstance(task, Choice) and not _writes(task):
        about["views"] = Views.softmax_sum.value
    return about


def _classified(
    task: Task, judged: Judged, card: Card | None, entry: dict, listed: dict[int, dict]
) -> Classified | None:
    if judged.scores is None or judged.labels is None:
        return None
    ids = getattr(task, "classes", None) or [str(i) for i in range(judged.scores.shape[1])]
    names = dict(zip(card.class_ids, card.classes)) if card else {}
    by_class = class_accuracy(judged.scores, judged.labels)
    return Classified(
        entry,
        listed,
        [names.get(each, each) for each in ids],
        by_class.accuracy.tolist(),
        by_class.support.tolist(),
        confusion(judged.scores, judged.labels),
    )


def _vqa_results(records: list[ClipRecord], answers: list[str]) -> list[dict]:
    """VQA's results format: [{"question_id": ..., "answer": ...}]."""
    return [
        {"question_id": id_of(record), "answer": answer}
        for record, answer in zip(records, answers, strict=True)
    ]
