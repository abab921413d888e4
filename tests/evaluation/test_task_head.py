import csv
import json
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from evaluating import evaluate_head
from heads import (
    ANSWERS,
    CPU,
    QUESTIONS,
    RELATIONS,
    pair_set,
    question_set,
    save_taught,
    statement_set,
    subject_of,
    video_set,
    written,
)
from processes import in_processes
from torch import nn

from coca_video.data.benchmarks.card import Card, write_card
from coca_video.data.captions import Caption
from coca_video.data.manifest import ClipRecord, read_manifest
from coca_video.data.views import ViewsConfig, record_views
from coca_video.errors import InputError
from coca_video.evaluation.benchmark import BenchmarkConfig, Outcome, Reading, evaluate_benchmark, is_complete
from coca_video.evaluation.parts import LoadingConfig
from coca_video.evaluation.subject import CocaSubject
from coca_video.evaluation.task_head import HeadConfig
from coca_video.evaluation.zero_shot import ClassificationConfig
from coca_video.loading import load
from coca_video.models.coca import CoCa
from coca_video.tasks.catalogue import task_of
from coca_video.tasks.classification import Classification
from coca_video.tasks.entailment import Entailment
from coca_video.tasks.picture_pairs import PicturePairs
from coca_video.tasks.question_answering import QuestionAnswering
from coca_video.tasks.task import Judged, Task, TaskInputs

TASKS = {
    "classification": (Classification(classes=ANSWERS), video_set),
    "question_answering": (QuestionAnswering(classes=[*ANSWERS, "bird"]), question_set),
    "entailment": (Entailment(classes=RELATIONS), statement_set),
    "picture_pairs": (PicturePairs(classes=["False", "True"]), pair_set),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Of each task a checkpoint and a data set, under its name."""
    root = tmp_path_factory.mktemp("heads")
    for name, (task, make_set) in TASKS.items():
        save_taught(root / name, task)
        make_set(root / "data" / name)
    return root


def manifest_of(root: Path, name: str) -> Path:
    return root / "data" / name / "own-test.jsonl"


def config_of(manifest: Path, *, batch_size: int = 4, head: HeadConfig | None = None, **changes):
    loading = LoadingConfig(batch_size=batch_size, num_workers=0)
    views = {"views": ViewsConfig(num_frames=3)} | changes
    return BenchmarkConfig(str(manifest), head=head or HeadConfig(), loading=loading, **views)


def evaluate(root: Path, name: str, output: Path, *, manifest: Path | None = None, **changes) -> Outcome:
    config = config_of(manifest or manifest_of(root, name), **changes)
    subject = subject_of(root / name, token_cache=config.token_cache)
    return evaluate_benchmark(subject, config, output=output)


def new_folder(path: Path) -> Path:
    path.mkdir()
    return path


def said(outcome: Outcome) -> list[str]:
    return [each.get("predicted", each.get("answer")) for each in outcome.predictions]


def entry_of(outcome: Outcome) -> dict:
    return outcome.result["tasks"]["head"]


def figures_of(outcome: Outcome) -> dict:
    return entry_of(outcome)["figures"]["video"]


@torch.inference_mode()
def one_by_one(root: Path, name: str, views: ViewsConfig = ViewsConfig(num_frames=3)) -> list[str]:
    """What the head says of every record, each view on its own."""
    checkpoint = load(root / name)
    task, model = task_of(checkpoint), checkpoint.model
    found = []
    for record in read_manifest(manifest_of(root, name)):
        total = 0
        for clip in record_views(
            record, views, lambda x, at: checkpoint.preprocessing.resized(x, size=16, position=at)
        ):
            tokens = model.encode_frames(checkpoint.preprocessing.normalised(clip.unsqueeze(0)))
            asked = task.ask(record, None).prompt
            texts = checkpoint.tokenizer.encode_prompted([asked], [""], max_length=24)
            inputs = TaskInputs(tokens, torch.ones(1, len(clip), dtype=torch.bool), *texts, torch.zeros(1))
            total = total + task.predict(model, inputs).softmax(dim=-1)
        found.append(task.classes[int(total.argmax())])
    return found


@pytest.mark.parametrize("name", TASKS)
def test_predictions_are_those_of_single_records(root, tmp_path, name):
    outcome = evaluate(root, name, tmp_path)
    assert said(outcome) == one_by_one(root, name) and len(set(said(outcome))) > 1
    assert entry_of(outcome)["task"] == name
    assert [entry_of(outcome)[key] for key in ("num_evaluated", "num_failed", "num_expected")] == [6, 0, None]
    assert list(outcome.result["tasks"]) == ["head"] and is_complete(outcome.result)
    assert [each["id"] for each in outcome.predictions] == [
        record.name for record in read_manifest(manifest_of(root, name))
    ]


@pytest.mark.parametrize("name", TASKS)
def test_the_batch_size_changes_nothing(root, tmp_path, name):
    one, whole = (evaluate(root, name, tmp_path / str(size), batch_size=size) for size in (1, 6))
    assert said(one) == said(whole) and one.result["tasks"] == whole.result["tasks"]


@pytest.mark.parametrize("name", TASKS)
def test_cached_tokens_change_nothing(root, tmp_path, name):
    """Of pairs too. The second time no file can be decoded any more, and nothing is encoded."""
    manifest = Path(shutil.copytree(manifest_of(root, name).parent, tmp_path / "data")) / "own-test.jsonl"
    settings = {"manifest": manifest, "token_cache": str(tmp_path / "cache")}
    plain = evaluate(root, name, tmp_path / "plain", manifest=manifest)
    first = evaluate(root, name, tmp_path / "first", **settings)
    config = config_of(manifest, token_cache=settings["token_cache"])
    subject = subject_of(root / name, token_cache=config.token_cache)
    subject.checkpoint.model.image_encoder.forward = None
    again = evaluate_benchmark(subject, config, output=tmp_path / "again")
    assert said(plain) == said(first) == said(again)
    assert plain.result["tasks"] == again.result["tasks"]


def test_several_views_are_summed(root, tmp_path):
    views = ViewsConfig(num_frames=2, num_clips=2, num_crops=3)
    outcome = evaluate(root, "classification", tmp_path, views=views)
    assert said(outcome) == one_by_one(root, "classification", views)
    assert entry_of(outcome)["views"] == "softmax_sum"


def test_questions_have_several_views_too(root, tmp_path):
    views = ViewsConfig(num_frames=1, num_crops=3)
    outcome = evaluate(root, "question_answering", tmp_path, views=views)
    assert said(outcome) == one_by_one(root, "question_answering", views)


# Figures


def test_figures_of_classification(root, tmp_path):
    outcome = evaluate(root, "classification", tmp_path)
    right = [each["predicted"] == each["labels"]["class"] for each in outcome.predictions]
    figures = figures_of(outcome)
    assert figures["top1"] == pytest.approx(100 * sum(right) / 6) and figures["top5"] == 100
    with (tmp_path / "per_class.csv").open() as file:
        assert {row["class"]: row["clips"] for row in csv.DictReader(file)} == dict.fromkeys(ANSWERS, "2")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"result.json", "predictions.jsonl", "per_class.csv", "confusion.png"}


def test_figures_of_questions(root, tmp_path):
    outcome = evaluate(root, "question_answering", tmp_path)
    scores = [each["accuracy"] for each in outcome.predictions]
    figures, entry = figures_of(outcome), entry_of(outcome)
    assert figures["accuracy"] == pytest.approx(sum(scores) / 6)
    of_type = [scores[i] for i in (0, 3, 5)]
    assert figures["answer_type"]["other"] == pytest.approx(sum(of_type) / 3)
    assert (entry["answers"], entry["num_classes"]) == ("chosen", 4) and "classes" not in entry["settings"]
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert answers == [{"question_id": 100 + i, "answer": said(outcome)[i]} for i in range(6)]
    assert (
        outcome.predictions[0]["answers"] == read_manifest(manifest_of(root, "question_answering"))[0].answers
    )


def test_figures_of_statements(root, tmp_path):
    outcome = evaluate(root, "entailment", tmp_path)
    right = [each["predicted"] == each["labels"]["relation"] for each in outcome.predictions]
    assert figures_of(outcome)["accuracy"] == pytest.approx(100 * sum(right) / 6)
    assert set(figures_of(outcome)["relation"]) == set(RELATIONS)


def test_figures_of_pairs(root, tmp_path):
    outcome = evaluate(root, "picture_pairs", tmp_path)
    right = [each["predicted"] == each["labels"]["answer"] for each in outcome.predictions]
    both = [all(right[i : i + 2]) for i in (0, 2, 4)]
    assert figures_of(outcome)["consistency"] == pytest.approx(100 * sum(both) / 3)
    assert [Path(each["second_path"]).name for each in outcome.predictions] == [
        f"{i + 1}.png" for i in range(6)
    ]


def test_a_card_knows_how_many_there_are_and_what_classes_are_called(root, tmp_path):
    folder = Path(shutil.copytree(root / "data" / "classification", tmp_path / "data"))
    names = ["a cat", "a dog", "a fox"]
    write_card(folder / "own-test.jsonl", Card("own", "Own", "test", 6, 6, 6, [], {}, names, ANSWERS, {}, []))
    outcome = evaluate(root, "classification", tmp_path / "out", manifest=folder / "own-test.jsonl")
    assert entry_of(outcome)["num_expected"] == 6 and outcome.result["official"]
    with (tmp_path / "out" / "per_class.csv").open() as file:
        assert {row["class"] for row in csv.DictReader(file)} == set(names)
    assert set(said(outcome)) <= set(ANSWERS)


def test_what_cannot_be_read_is_counted(root, tmp_path):
    folder = Path(shutil.copytree(root / "data" / "picture_pairs", tmp_path / "data"))
    (folder / "6.png").unlink()  # the last pair's second
    outcome = evaluate(root, "picture_pairs", tmp_path / "out", manifest=folder / "own-test.jsonl")
    assert (entry_of(outcome)["num_evaluated"], entry_of(outcome)["num_failed"]) == (5, 1)
    assert "6.png" in outcome.result["failed"][0]["reason"] and not is_complete(outcome.result)


def test_the_classes_that_occur(root, tmp_path):
    """Without the others a head cannot be wrong in their favour."""
    found = one_by_one(root, "classification")
    most = max(ANSWERS, key=found.count)
    records = read_manifest(manifest_of(root, "classification"))
    fewer = [each for each in records if each.labels["class"] != most]
    manifest = written(new_folder(tmp_path / "data"), fewer)
    plain = evaluate(root, "classification", tmp_path / "plain", manifest=manifest)
    present = HeadConfig(only_present=True)
    outcome = evaluate(root, "classification", tmp_path / "present", manifest=manifest, head=present)
    assert most in said(plain) and most not in said(outcome)
    assert entry_of(outcome)["settings"]["only_present"] is True


def test_a_part_of_the_records(root, tmp_path):
    """The others, of which the head could say nothing, take part in what is zero-shot."""
    records = read_manifest(manifest_of(root, "classification"))
    for record in records[:2]:
        record.labels = {"domain": "near"}
    manifest = written(new_folder(tmp_path / "data"), records)
    changes = {"head": HeadConfig(subset="class"), "classification": ClassificationConfig("domain")}
    outcome = evaluate(root, "classification", tmp_path / "out", manifest=manifest, **changes)
    tasks = outcome.result["tasks"]
    assert (tasks["head"]["num_evaluated"], tasks["classification"]["num_evaluated"]) == (4, 2)
    assert ["predicted" in each for each in outcome.predictions] == [False, False, True, True, True, True]
    assert outcome.classified.classes == ["near"]  # the zero-shot classes have the files
    assert set(tasks["classification"]["figures"]) == {"video", "first_frame", "mean_of_frames"}


# Questions


def test_the_answers_are_not_seen(root, tmp_path):
    records = read_manifest(manifest_of(root, "question_answering"))
    others = [replace(record, answers=["bird"] * 10) for record in records]
    manifest = written(new_folder(tmp_path / "data"), others)
    plain = evaluate(root, "question_answering", tmp_path / "a")
    assert said(evaluate(root, "question_answering", tmp_path / "b", manifest=manifest)) == said(plain)


def test_answers_that_the_publisher_keeps(root, tmp_path):
    """There are no figures, but what its server takes."""
    manifest = question_set(tmp_path / "data", annotators=0, types=False)
    outcome = evaluate(root, "question_answering", tmp_path / "out", manifest=manifest)
    assert figures_of(outcome) == {} and is_complete(outcome.result)
    answers = json.loads((tmp_path / "out" / "answers.json").read_text())
    assert [each["question_id"] for each in answers] == list(range(100, 106))
    assert [each["answer"] for each in answers] == one_by_one(root, "question_answering")
    assert any("its questions have no answers" in each for each in outcome.result["not_official_because"])


def test_some_answers_are_missing(root, tmp_path):
    records = read_manifest(manifest_of(root, "question_answering"))
    manifest = written(new_folder(tmp_path / "data"), [*records[:5], replace(records[5], answers=[])])
    with pytest.raises(InputError) as caught:
        evaluate(root, "question_answering", tmp_path / "out", manifest=manifest)
    assert str(caught.value) == f"{manifest}: 105: has no answers"
    assert not (tmp_path / "out").exists()


def test_written_answers(root, tmp_path):
    head = HeadConfig(open_ended=True)
    outcome = evaluate(root, "question_answering", tmp_path, head=head)
    single = evaluate(root, "question_answering", tmp_path / "single", head=head, batch_size=3)
    assert said(outcome) == said(single) and not set(said(outcome)) & {*ANSWERS, "bird"}
    assert entry_of(outcome)["answers"] == "written" and "views" not in entry_of(outcome)
    assert [each["answer"] for each in json.loads((tmp_path / "answers.json").read_text())] == said(outcome)


def test_long_questions_are_cut(root, tmp_path):
    records = read_manifest(manifest_of(root, "question_answering"))
    manifest = written(
        new_folder(tmp_path / "data"), [replace(each, text=f"{each.text} " * 40) for each in records]
    )
    for open_ended in (False, True):
        head = HeadConfig(open_ended=open_ended)
        outcome = evaluate(
            root, "question_answering", tmp_path / str(open_ended), manifest=manifest, head=head
        )
        assert len(said(outcome)) == 6


# Blind, distributed, one's own


def test_a_blind_task_sees_no_picture(tmp_path):
    save_taught(tmp_path / "blind", Entailment(classes=RELATIONS, blind=True))
    manifest = statement_set(tmp_path / "data")
    first = evaluate(tmp_path, "blind", tmp_path / "a", manifest=manifest)
    for i in range(6):
        shutil.copyfile(manifest.with_name("0.png"), manifest.with_name(f"{i}.png")) if i else None
    assert said(evaluate(tmp_path, "blind", tmp_path / "b", manifest=manifest)) == said(first)
    assert entry_of(first)["settings"]["blind"] is True


def test_two_processes_do_as_one(root, tmp_path, one_thread):
    """Logits and answers alike."""
    works = []
    for name in ("classification", "question_answering"):
        config = config_of(manifest_of(root, name), batch_size=2)
        evaluate_benchmark(subject_of(root / name), config, output=tmp_path / f"{name} whole")
        works.append(partial(evaluate_head, root / name, config, new_folder(tmp_path / name)))
    in_processes(tmp_path, *works)
    for file in ("classification/predictions.jsonl", "question_answering/answers.json"):
        name, file = file.split("/")
        for each in (file, "result.json"):
            assert (tmp_path / name / each).read_bytes() == (tmp_path / f"{name} whole" / each).read_bytes()


@pytest.fixture
def one_thread():
    """As spawned processes have: sums of several threads round in another order."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@dataclass
class Length(Task):
    """How long a text is: a number, and no class."""

    name: ClassVar[str] = "length"

    def ask(self, record, rng) -> Caption:
        return Caption("", "", record.text, torch.tensor(float(len(record.text))))

    def head(self, config) -> nn.Module:
        return nn.Linear(config.text.width, 1)

    def losses(self, model: CoCa, inputs: TaskInputs) -> dict:
        return {"task": (self.predict(model, inputs) - inputs.targets) ** 2}

    def predict(self, model: CoCa, inputs: TaskInputs) -> torch.Tensor:
        features = model.fuse(inputs.tokens, inputs.ids, inputs.text_mask, inputs.frame_mask)
        return model.task_head(features[:, 0]).squeeze(1)

    def judge(self, records: list[ClipRecord], predictions: torch.Tensor) -> Judged:
        lengths = torch.tensor([len(record.text) for record in records])
        wrong = (predictions.mean(dim=1) - lengths).abs()
        return Judged({"error": wrong.mean().item()}, [{"length": x} for x in predictions[:, 0].tolist()])


def test_a_task_of_one_s_own(root, tmp_path):
    folder = save_taught(tmp_path / "length", Length())
    checkpoint = load(folder)
    subject = CocaSubject(checkpoint, CPU, task=task_of(checkpoint, [Length]))
    config = config_of(manifest_of(root, "entailment"), views=ViewsConfig(num_frames=1, num_crops=3))
    outcome = evaluate_benchmark(subject, config, output=tmp_path / "out")
    wrong = [abs(each["length"] - len(each["text"])) for each in outcome.predictions]
    assert figures_of(outcome)["error"] == pytest.approx(sum(wrong) / 6, rel=0.05)
    assert entry_of(outcome)["settings"] == {"blind": False} and "num_classes" not in entry_of(outcome)
    assert not (tmp_path / "out" / "per_class.csv").exists()


# What is refused, before anything is read or written


def refusal(root: Path, name: str, output: Path, **changes) -> str:
    with pytest.raises(InputError) as caught:
        evaluate(root, name, output, **changes)
    assert not output.exists()
    return str(caught.value)


def test_a_checkpoint_that_has_learned_nothing(root, tmp_path):
    subject = CocaSubject(load(root / "entailment"), CPU)
    with pytest.raises(InputError) as caught:
        evaluate_benchmark(subject, config_of(manifest_of(root, "entailment")), output=tmp_path / "out")
    assert str(caught.value) == (
        f"evaluate.head: {root / 'entailment'} has learned no task, so that it has no head"
    )


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        (
            "entailment",
            {"open_ended": True},
            "evaluate.head.open_ended: the task entailment has no such setting",
        ),
        (
            "question_answering",
            {"only_present": False},
            "evaluate.head.only_present: the task question_answer",
        ),
        ("classification", {"subset": "klass"}, "{manifest}: no example is in 'klass'"),
    ],
)
def test_settings_that_the_task_does_not_have(root, tmp_path, name, head, expected):
    found = refusal(root, name, tmp_path / "out", head=HeadConfig(**head))
    assert found.startswith(expected.format(manifest=manifest_of(root, name)))


def test_written_answers_have_one_view(root, tmp_path):
    changes = {"head": HeadConfig(open_ended=True), "views": ViewsConfig(num_frames=1, num_crops=3)}
    found = refusal(root, "question_answering", tmp_path / "out", **changes)
    assert found == "evaluate.head.open_ended needs a single view: num_clips and num_crops must be 1"


def test_a_class_that_the_head_does_not_know(root, tmp_path):
    records = read_manifest(manifest_of(root, "classification"))
    manifest = written(
        new_folder(tmp_path / "data"), [*records, replace(records[0], labels={"class": "bird"}, id="v6")]
    )
    found = refusal(root, "classification", tmp_path / "out", manifest=manifest)
    assert found == f"{manifest}: v6: 'bird' is none of the 3 classes"


def test_pairs_and_single_pictures(root, tmp_path):
    single, pairs = manifest_of(root, "entailment"), manifest_of(root, "picture_pairs")
    found = refusal(root, "picture_pairs", tmp_path / "out", manifest=single)
    reason = "the task picture_pairs is about pairs, found a single file, without second_path"
    assert found == f"{single}: s0: {reason}"
    found = refusal(root, "entailment", tmp_path / "out", manifest=pairs)
    assert found == f"{pairs}: p0: the task entailment is about single files, found a pair"
    videos = read_manifest(manifest_of(root, "classification"))
    labels = {"answer": "True"}
    both = [replace(each, second_path=each.path, labels=labels) for each in videos]
    manifest = written(new_folder(tmp_path / "data"), both)
    found = refusal(root, "picture_pairs", tmp_path / "out", manifest=manifest)
    assert found == f"{manifest}: v0: the task picture_pairs is about pairs of pictures, found a video"


@pytest.mark.parametrize("name", ["question_answering", "entailment"])
def test_a_head_that_has_diverged(root, tmp_path, name):
    subject = subject_of(root / name)
    torch.nn.init.constant_(subject.checkpoint.model.task_head.classes.bias, float("nan"))
    with pytest.raises(InputError, match=r"0.png to .*3.png: the model's predictions are not all numbers"):
        evaluate_benchmark(subject, config_of(manifest_of(root, name)), output=tmp_path)


def test_a_head_reads_all_frames():
    with pytest.raises(ValueError, match="reading must be video: a head sees all frames, got first_frame"):
        BenchmarkConfig("m", head=HeadConfig(), reading=Reading.first_frame)


def test_without_head_the_task_is_ignored(root, tmp_path):
    config = config_of(manifest_of(root, "classification"), classification=ClassificationConfig())
    subject = CocaSubject(load(root / "classification"), CPU)
    outcome = evaluate_benchmark(subject, replace(config, head=None), output=tmp_path)
    assert list(outcome.result["tasks"]) == ["classification"] and len(QUESTIONS) == 6
