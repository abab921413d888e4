import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision
from evaluating import CountingSubject, evaluate_apart
from evaluating import evaluate as evaluate_in_process
from processes import in_processes
from videos import coloured_frames, save_video

from coca_video.checkpoint import Checkpoint, load_checkpoint
from coca_video.cli import load_config
from coca_video.config import EvaluateConfig
from coca_video.data.benchmarks.card import Card, write_card
from coca_video.data.manifest import ClipRecord, read_manifest, write_manifest
from coca_video.data.views import ViewsConfig
from coca_video.errors import InputError
from coca_video.evaluation.benchmark import BenchmarkConfig, Outcome, Reading, evaluate_benchmark, is_complete
from coca_video.evaluation.caption_quality import CaptionConfig
from coca_video.evaluation.captioning import DecodingConfig
from coca_video.evaluation.parts import LoadingConfig
from coca_video.evaluation.retrieval import RetrievalConfig, Texts
from coca_video.evaluation.subject import READINGS, CocaSubject
from coca_video.evaluation.zero_shot import ClassificationConfig
from coca_video.models.adaptors import Adaptor, TemporalConfig

CPU = torch.device("cpu")
TASKS = ("classification", "retrieval", "captioning")


@pytest.fixture(scope="module")
def checkpoint(image_run) -> Checkpoint:
    return load_checkpoint(image_run)


def emoji_config(root: Path, *changes: str, pack: int = 3) -> BenchmarkConfig:
    """The emoji benchmark's own settings, from its YAML file."""
    data = [f"evaluate.manifest='{root}/clips/pack{pack}.jsonl'", "evaluate.loading.num_workers=0"]
    settings = ["checkpoint=none", "evaluate=emoji", "evaluate.views.num_frames=4", *data, *changes]
    return load_config(EvaluateConfig, "evaluate", settings).evaluate


def evaluate(checkpoint: Checkpoint, config: BenchmarkConfig, output: Path) -> Outcome:
    subject = CocaSubject(checkpoint, CPU, token_cache=config.token_cache)
    return evaluate_benchmark(subject, config, output=output)


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("evaluated")


@pytest.fixture(scope="module")
def evaluated(checkpoint, emoji_root, output) -> Outcome:
    return evaluate(checkpoint, emoji_config(emoji_root), output)


def test_what_was_evaluated(evaluated):
    """Of six clips five show an action and four have no skin tone; expected is what the real pack holds."""
    tasks = evaluated.result["tasks"]
    for task, expected in zip(TASKS, ((5, 286), (4, 222), (4, 222))):
        assert (tasks[task]["num_evaluated"], tasks[task]["num_expected"]) == expected
        assert tasks[task]["num_failed"] == 0
    assert tasks["classification"]["num_classes"] == 3
    assert len(evaluated.predictions) == evaluated.result["num_evaluated"] == 6
    assert not evaluated.result["official"] and not is_complete(evaluated.result)
    reason = "classification: 5 examples evaluated, the official number is 286"
    assert evaluated.result["not_official_because"][0] == reason


def test_the_protocol_is_written_down(evaluated, checkpoint, emoji_root, image_run):
    result = evaluated.result
    manifest = emoji_root / "clips" / "pack3.jsonl"
    assert result["manifest"] == str(manifest)
    assert result["manifest_sha256"] == hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert result["protocol"] == {
        "name": "emoji transfer",
        "reading": "video",
        "num_frames": 4,
        "sampling": "uniform",
        "stride": 1,
        "num_clips": 1,
        "num_crops": 1,
        "image_size": 16,
        "resize": "center_crop",
        "merged_per_block": 0,
        "reduced_decoding": False,
    }
    prompts = ["person {}", "man {}", "woman {}"]
    assert result["tasks"]["classification"]["templates"] == {"sets": prompts, "prompts": prompts}
    assert result["tasks"]["captioning"]["decoding"] == "beam search (8), the nearest to the clip's embedding"
    assert (result["dataset"], result["title"], result["split"]) == ("emoji", "emoji transfer", "pack3")
    assert result["model"] == {
        "checkpoint": str(image_run / "checkpoints" / "step-0000008"),
        "sha256": checkpoint.hash,
        "trained_on": [str(emoji_root / "pictures")],
        "adaptor": "attentional",
    }
    assert result["versions"]["torch"] == torch.__version__
    assert result["versions"]["torchvision"] == torchvision.__version__


def test_figures_follow_from_the_predictions(evaluated, emoji_root):
    tasks, predictions = evaluated.result["tasks"], evaluated.predictions
    of_actions = [p for p in predictions if "action" in p["labels"]]
    right = [p["top_classes"][0][0] == p["labels"]["action"] for p in of_actions]
    figures = tasks["classification"]["figures"]["video"]
    assert figures["top1"] == pytest.approx(100 * sum(right) / 5)
    assert figures["top5"] == 100  # of three classes
    assert figures["mean_top1_top5"] == pytest.approx((figures["top1"] + 100) / 2)
    for p in of_actions:
        assert sorted(name for name, _ in p["top_classes"]) == ["rowing boat", "running", "swimming"]
        assert sum(probability for _, probability in p["top_classes"]) == pytest.approx(1)
    ranks = [p["rank"] for p in predictions if "rank" in p]
    assert len(ranks) == 4 and set(ranks) <= {1, 2, 3, 4}
    figures = tasks["retrieval"]["figures"]["video"]["video_to_text"]
    assert figures["R@1"] == pytest.approx(100 * ranks.count(1) / 4)
    assert figures["mean_rank"] == pytest.approx(sum(ranks) / 4)
    for p in predictions:
        names = [name for name, _ in p.get("nearest_texts", [])]
        assert "rank" not in p or names.index(p["text"]) == p["rank"] - 1
        assert isinstance(p["caption"], str)
    records = read_manifest(emoji_root / "clips" / "pack3.jsonl")
    assert [(p["path"], p["text"], p["labels"]) for p in predictions] == [
        (str(record.path), record.text, record.labels) for record in records
    ]


def test_every_reading_has_its_figures(evaluated):
    figures = {task: evaluated.result["tasks"][task]["figures"] for task in TASKS}
    for reading in READINGS:
        assert {"top1", "top5", "mean_class_accuracy"} <= set(figures["classification"][reading])
        assert set(figures["retrieval"][reading]) == {"video_to_text", "text_to_video"}
    for reading in READINGS[:2]:
        assert {"cider_d", "exact_match", "distinct_ratio", "bleu_4"} <= set(figures["captioning"][reading])
    assert set(evaluated.result["tasks"]["retrieval"]["dual_softmax"]) == {"video"}


def test_what_lies_beside_the_result(evaluated, output):
    names = ["captions.json", "confusion.png", "per_class.csv", "predictions.jsonl", "result.json"]
    assert sorted(path.name for path in output.iterdir()) == names
    assert json.loads((output / "result.json").read_text()) == evaluated.result
    captions = json.loads((output / "captions.json").read_text())
    assert [each["caption"] for each in captions] == [p["caption"] for p in evaluated.predictions]
    with (output / "per_class.csv").open() as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    assert {name: int(row["clips"]) for name, row in rows.items()} == {
        "running": 2,
        "swimming": 2,
        "rowing boat": 1,
    }
    right = sum(float(row["top1"]) * int(row["clips"]) for row in rows.values()) / 5
    assert right == pytest.approx(evaluated.result["tasks"]["classification"]["figures"]["video"]["top1"])


def test_one_frame_makes_every_reading_the_same(checkpoint, emoji_root, tmp_path):
    outcome = evaluate(checkpoint, emoji_config(emoji_root, "evaluate.views.num_frames=1"), tmp_path)
    for task in TASKS:
        first, *others = outcome.result["tasks"][task]["figures"].values()
        assert others and all(figures == first for figures in others), task


def test_the_batch_size_changes_nothing(checkpoint, emoji_root, evaluated, tmp_path):
    """Nor do the processes that decode."""
    changes = ["evaluate.loading.batch_size=2", "evaluate.loading.num_workers=1"]
    outcome = evaluate(checkpoint, emoji_config(emoji_root, *changes), tmp_path)
    for name in ("caption", "rank"):
        assert [p.get(name) for p in outcome.predictions] == [p.get(name) for p in evaluated.predictions]
    assert outcome.result == evaluated.result


def test_another_pack_is_nobodys_benchmark(checkpoint, emoji_root, tmp_path):
    result = evaluate(checkpoint, emoji_config(emoji_root, pack=1), tmp_path).result
    for task, number in zip(TASKS, (1, 4, 4)):
        assert result["tasks"][task]["num_evaluated"] == number
        assert result["tasks"][task]["num_expected"] is None
    assert is_complete(result) and not result["official"]
    assert result["not_official_because"] == [
        f"no official number of examples is known for {', '.join(TASKS)}"
    ]


def test_a_clip_that_is_in_no_task_is_left_out(checkpoint, emoji_root, tmp_path):
    """A skin tone without an action."""
    shutil.copytree(emoji_root, tmp_path / "data")
    manifest = tmp_path / "data" / "clips" / "pack3.jsonl"
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([*lines, lines[-1].replace('"skintone": ""', '"skintone": "dark"')]))
    assert len(read_manifest(manifest)) == 7
    config = replace(emoji_config(tmp_path / "data"), captioning=None)
    assert len(evaluate(checkpoint, config, tmp_path / "out").predictions) == 6


def test_training_on_the_test_is_refused(checkpoint, emoji_root, monkeypatch, tmp_path):
    """However the same file is named."""
    manifest = emoji_root / "clips" / "pack3.jsonl"
    monkeypatch.chdir(emoji_root)
    for name in (str(manifest), "clips/pack3.jsonl", "./clips/../clips/pack3.jsonl"):
        with pytest.raises(InputError) as caught:
            cheat = replace(checkpoint, trained_on=["elsewhere", name])
            evaluate(cheat, emoji_config(emoji_root), tmp_path)
        assert str(caught.value) == f"{checkpoint.path}: was trained on {manifest}, the clips to be evaluated"


def test_missing_data(checkpoint, tmp_path):
    with pytest.raises(InputError, match="pack3.jsonl: cannot read this manifest"):
        evaluate(checkpoint, emoji_config(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def broken_root(emoji_root, tmp_path) -> Path:
    """One clip is cut short, one is gone: swimming, the only rowing boat."""
    root = Path(shutil.copytree(emoji_root, tmp_path / "data"))
    folder = root / "clips" / "pack3"
    (folder / "3f2.mp4").write_bytes((folder / "3f2.mp4").read_bytes()[:300])
    (folder / "3f4.mp4").unlink()
    return root


def test_broken_clips_are_counted_and_listed(checkpoint, broken_root, tmp_path):
    """And never replaced; a class without a readable clip stays a class."""
    outcome = evaluate(
        checkpoint, emoji_config(broken_root, "evaluate.loading.num_workers=1"), tmp_path / "out"
    )
    result, folder = outcome.result, broken_root / "clips" / "pack3"
    assert (result["num_evaluated"], result["num_failed"]) == (4, 2)
    assert [Path(each["path"]).name for each in result["failed"]] == ["3f2.mp4", "3f4.mp4"]
    assert [each["kind"] for each in result["failed"]] == ["error", "error"]
    assert result["failed"][1]["reason"] == f"{folder / '3f4.mp4'}: no such file"
    assert result["failed"][0]["reason"].startswith(f"{folder / '3f2.mp4'}: cut short")
    assert "2 examples could not be read" in result["not_official_because"]
    tasks = result["tasks"]
    assert [(tasks[t]["num_evaluated"], tasks[t]["num_failed"]) for t in TASKS] == [(3, 2), (2, 2), (2, 2)]
    assert tasks["classification"]["num_classes"] == 3
    assert [Path(p["path"]).stem for p in outcome.predictions] == ["3f0", "3f1", "3f3", "3f5"]
    assert len(outcome.captions) == 4


def test_nothing_readable_is_an_error(checkpoint, emoji_root, tmp_path):
    root = Path(shutil.copytree(emoji_root, tmp_path / "data"))
    shutil.rmtree(root / "clips" / "pack3")
    with pytest.raises(
        InputError, match=r"not one of 6 examples could be read; the first: .*3f0.mp4: no such"
    ):
        evaluate(checkpoint, emoji_config(root), tmp_path / "out")
    assert not (tmp_path / "out" / "result.json").exists()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: BenchmarkConfig("m"), "classification, retrieval, captioning or head must be given, got"),
        (lambda: LoadingConfig(batch_size=0), "batch_size and timeout must be positive.*got 0, 2"),
        (lambda: LoadingConfig(timeout=0), "timeout must be positive"),
        (lambda: ClassificationConfig(templates=[]), "templates must hold at least one"),
        (lambda: RetrievalConfig(max_texts=-1), "max_texts must not be negative, got -1"),
    ],
)
def test_settings_check_themselves(make, expected):
    with pytest.raises(ValueError, match=expected):
        make()


def test_several_views_cannot_be_captioned(emoji_root):
    with pytest.raises(InputError, match="captioning needs a single view"):
        emoji_config(emoji_root, "evaluate.views.num_crops=3")
    with pytest.raises(InputError, match="token_cache needs a single view"):
        emoji_config(
            emoji_root, "evaluate.views.num_clips=2", "evaluate.captioning=null", "evaluate.token_cache=x"
        )


def test_cached_tokens_change_no_figure(checkpoint, emoji_root, evaluated, tmp_path):
    """The second time the videos cannot be decoded any more."""
    root = Path(shutil.copytree(emoji_root, tmp_path / "data"))
    config = emoji_config(root, f"evaluate.token_cache='{tmp_path / 'cache'}'")
    first = evaluate(checkpoint, config, tmp_path / "first")
    for path in (root / "clips" / "pack3").glob("*.mp4"):
        state = path.stat()
        path.write_bytes(bytes(state.st_size))
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    again = evaluate(checkpoint, config, tmp_path / "again")
    with pytest.raises(InputError):
        evaluate(checkpoint, replace(config, token_cache=None), tmp_path / "without")
    for outcome in (first, again):
        assert outcome.result["tasks"] == evaluated.result["tasks"]
        for name in ("top_classes", "nearest_texts", "rank", "caption"):
            assert [p.get(name) for p in outcome.predictions] == [p.get(name) for p in evaluated.predictions]


def test_frames_encoded_together_cannot_be_cached(image_run, emoji_root, tmp_path):
    joint = load_checkpoint(image_run, temporal=TemporalConfig(Adaptor.joint))
    expected = "evaluate.token_cache: the joint adaptor encodes a clip's frames together"
    with pytest.raises(InputError, match=expected):
        evaluate(joint, emoji_config(emoji_root, f"evaluate.token_cache='{tmp_path / 'cache'}'"), tmp_path)
    assert not (tmp_path / "cache").exists()


def test_approximations_are_not_official(checkpoint, emoji_root, tmp_path):
    result = evaluate(
        checkpoint, emoji_config(emoji_root, "evaluate.loading.reduced_decoding=true"), tmp_path
    ).result
    assert result["protocol"]["reduced_decoding"] is True
    assert "reduced_decoding is an approximation" in result["not_official_because"]


# A small set with everything that public ones have: several texts, classes, a card.

CLASSES = ["red", "green", "blue", "never seen"]


@pytest.fixture(scope="module")
def small_set(tmp_path_factory) -> Path:
    """Nine clips, each with two texts, of three of four classes; official."""
    folder = tmp_path_factory.mktemp("small")
    records = []
    for i in range(9):
        path = save_video(folder / f"{i}.mp4", coloured_frames(12 + i, height=32, width=48)[i:], fps=10)
        labels = {"class": CLASSES[i % 3], "domain": "near" if i % 2 else "far"}
        records.append(ClipRecord(path, f"clip {i}", labels, id=f"-{i}", more_texts=[f"number {i}"]))
    manifest = folder / "small-test.jsonl"
    write_manifest(manifest, records)
    card = Card("small", "Small", "test", 9, 9, 9, [], {"a.csv": "1"}, CLASSES, CLASSES, {}, ["a note"])
    write_card(manifest, card)
    return manifest


def small_config(manifest: Path, **changes) -> BenchmarkConfig:
    tasks = {"classification": ClassificationConfig(), "retrieval": RetrievalConfig(texts=Texts.all)}
    return BenchmarkConfig(
        str(manifest), **({"loading": LoadingConfig(batch_size=4, num_workers=0)} | tasks | changes)
    )


def test_an_official_result(checkpoint, small_set, tmp_path):
    result = evaluate(checkpoint, small_config(small_set), tmp_path).result
    assert result["official"] and result["not_official_because"] == [] and is_complete(result)
    assert result["tasks"]["classification"]["num_classes"] == 4
    assert result["tasks"]["retrieval"]["num_texts"] == 18
    assert result["annotations"] == {"a.csv": "1"} and result["notes"] == ["a note"]
    assert {p["id"] for p in map(json.loads, (tmp_path / "predictions.jsonl").open())} == {
        f"-{i}" for i in range(9)
    }


def test_missing_examples_are_not_official(checkpoint, small_set, tmp_path):
    shutil.copytree(small_set.parent, tmp_path / "data")
    manifest = tmp_path / "data" / small_set.name
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join(lines[:8]) + "\n")
    card = Card("small", "Small", "test", 9, 9, 8, ["-8"], {}, CLASSES, CLASSES, {}, [])
    write_card(manifest, card)
    result = evaluate(checkpoint, small_config(manifest), tmp_path / "out").result
    assert not result["official"] and not is_complete(result)
    assert result["missing"] == ["-8"]
    assert result["not_official_because"][0] == "1 listed examples are not on this disk"


def test_a_manifest_that_was_changed_is_not_official(checkpoint, small_set, tmp_path):
    """A hard example replaced by an easy one leaves all numbers as they are."""
    shutil.copytree(small_set.parent, tmp_path / "data")
    manifest = tmp_path / "data" / small_set.name
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([*lines[:8], lines[0]]) + "\n")
    result = evaluate(checkpoint, small_config(manifest), tmp_path / "out").result
    assert is_complete(result) and not result["official"]
    assert result["not_official_because"] == ["the manifest is not the one that its card was written for"]


@pytest.mark.parametrize(
    ("retrieval", "reason"),
    [
        (RetrievalConfig(texts=Texts.all), None),
        (RetrievalConfig(texts=Texts.all, max_texts=5), None),
        (RetrievalConfig(texts=Texts.all, max_texts=1), "retrieval: 9 texts of 18 (texts=all)"),
        (RetrievalConfig(texts=Texts.first), "retrieval: 9 texts of 18 (texts=first)"),
        (RetrievalConfig(texts=Texts.joined), "retrieval: 9 texts of 18 (texts=joined)"),
    ],
)
def test_fewer_texts_are_not_official(checkpoint, small_set, tmp_path, retrieval, reason):
    config = small_config(small_set, classification=None, retrieval=retrieval)
    result = evaluate(checkpoint, config, tmp_path).result
    assert result["not_official_because"] == ([reason] if reason else [])


def test_a_reading_that_the_model_lacks(checkpoint, small_set, tmp_path):
    subject = CocaSubject(checkpoint, CPU)
    subject.readings = ("mean_of_frames",)
    with pytest.raises(InputError, match="evaluate.reading: .* has no video; allowed are mean_of_frames"):
        evaluate_benchmark(subject, small_config(small_set, reading=Reading.video), output=tmp_path / "out")
    result = evaluate_benchmark(subject, small_config(small_set), output=tmp_path / "out").result
    assert result["protocol"]["reading"] == "mean_of_frames"


def test_a_class_that_the_card_lacks(checkpoint, small_set, tmp_path):
    shutil.copytree(small_set.parent, tmp_path / "data")
    manifest = tmp_path / "data" / small_set.name
    manifest.write_text(manifest.read_text().replace('"class": "red"', '"class": "rde"'))
    with pytest.raises(InputError, match="'rde' is none of the 4 classes on the card"):
        evaluate(checkpoint, small_config(manifest), tmp_path / "out")


def test_captions_by_group(checkpoint, small_set, tmp_path):
    captioning = CaptionConfig(DecodingConfig(num_beams=1), group_by="domain", java=False)
    config = small_config(small_set, classification=None, retrieval=None, captioning=captioning)
    outcome = evaluate(checkpoint, config, tmp_path)
    groups = outcome.result["tasks"]["captioning"]["by_group"]
    assert {name: each["num_evaluated"] for name, each in groups.items()} == {"far": 5, "near": 4}
    assert outcome.captions[3]["image_id"] == "-3"
    assert outcome.result["tasks"]["captioning"]["num_references"] == 18


def test_views_are_combined(checkpoint, small_set, tmp_path):
    """One view of each of two clips and three crops; the frames are wider than high, so that crops differ."""
    views = ViewsConfig(num_frames=2, num_clips=2, num_crops=3)
    one = evaluate(checkpoint, small_config(small_set), tmp_path / "one")
    many = evaluate(checkpoint, small_config(small_set, views=views), tmp_path / "many")
    assert (many.result["protocol"]["num_clips"], many.result["protocol"]["num_crops"]) == (2, 3)
    assert many.result["num_evaluated"] == 9
    scores = [[value for _, value in p["top_classes"]] for p in many.predictions]
    assert all(sum(row) == pytest.approx(1) for row in scores)
    assert scores != [[value for _, value in p["top_classes"]] for p in one.predictions]


class _Interrupted(CocaSubject):
    """Ctrl-C while the third batch is encoded."""

    num_batches = 0

    def encode(self, clips, origins):
        self.num_batches += 1
        if self.num_batches == 3:
            raise KeyboardInterrupt
        return super().encode(clips, origins)


def test_an_interrupted_evaluation_goes_on(checkpoint, small_set, tmp_path):
    config = small_config(small_set)
    whole = evaluate(checkpoint, config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        evaluate_benchmark(_Interrupted(checkpoint, CPU), config, output=tmp_path / "out")
    assert not (tmp_path / "out" / "result.json").exists()
    again = CountingSubject(checkpoint, CPU)
    outcome = evaluate_benchmark(again, config, output=tmp_path / "out")
    assert again.num_clips == 1  # of nine in batches of four
    assert outcome.result == whole.result and outcome.predictions == whole.predictions
    assert not (tmp_path / "out" / "parts").exists()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As spawned processes have: sums of several threads round in another order."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def test_two_processes_do_as_one(checkpoint, image_run, small_set, tmp_path, one_thread):
    """Each clip is encoded once, by one of them."""
    config = small_config(small_set)
    whole = evaluate(checkpoint, config, tmp_path / "whole")
    output = tmp_path / "shared"
    output.mkdir()
    in_processes(tmp_path, partial(evaluate_in_process, image_run, config, output))
    assert json.loads((output / "result.json").read_text()) == whole.result
    for name in ("predictions.jsonl", "per_class.csv", "confusion.png"):
        assert (output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert [(output / f"encoded-{rank}").read_text() for rank in range(2)] == ["5", "4"]


def test_other_settings_do_not_go_on(checkpoint, small_set, tmp_path):
    """What an interrupted evaluation left is of its own frames."""
    with pytest.raises(KeyboardInterrupt):
        evaluate_benchmark(_Interrupted(checkpoint, CPU), small_config(small_set), output=tmp_path)
    again = CountingSubject(checkpoint, CPU)
    evaluate_benchmark(again, small_config(small_set, views=ViewsConfig(num_frames=3)), output=tmp_path)
    assert again.num_clips == 9


def test_a_kept_result_is_replaced_as_a_whole(checkpoint, small_set, tmp_path):
    evaluate(checkpoint, small_config(small_set), tmp_path)
    assert (tmp_path / "confusion.png").exists()
    evaluate(checkpoint, small_config(small_set, classification=None), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.jsonl", "result.json"]


def interrupt(checkpoint, config, output: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate_benchmark(_Interrupted(checkpoint, CPU), config, output=output)


@pytest.fixture
def copied_set(small_set, tmp_path) -> Path:
    return Path(shutil.copytree(small_set.parent, tmp_path / "data")) / small_set.name


def test_parts_of_files_that_have_changed_are_made_again(checkpoint, copied_set, tmp_path):
    config = small_config(copied_set)
    interrupt(checkpoint, config, tmp_path / "out")
    shutil.copyfile(copied_set.with_name("1.mp4"), copied_set.with_name("0.mp4"))
    again = CountingSubject(checkpoint, CPU)
    outcome = evaluate_benchmark(again, config, output=tmp_path / "out")
    assert again.num_clips == 5  # the first part, and the third that was never made
    assert outcome.result["tasks"] == evaluate(checkpoint, config, tmp_path / "whole").result["tasks"]


def test_a_clip_that_came_back_is_read(checkpoint, copied_set, tmp_path):
    away = copied_set.with_name("0.mp4").rename(tmp_path / "0.mp4")
    interrupt(checkpoint, small_config(copied_set), tmp_path / "out")
    away.rename(copied_set.with_name("0.mp4"))
    result = evaluate(checkpoint, small_config(copied_set), tmp_path / "out").result
    assert result["num_failed"] == 0 and result["official"]


@pytest.mark.parametrize("num_bytes", [0, 100])
def test_a_damaged_part_is_made_again(checkpoint, small_set, tmp_path, num_bytes):
    """As a machine without power leaves it."""
    config = small_config(small_set)
    interrupt(checkpoint, config, tmp_path)
    part = next((tmp_path / "parts").glob("*/part-000000*"))
    part.write_bytes(part.read_bytes()[:num_bytes])
    again = CountingSubject(checkpoint, CPU)
    assert evaluate_benchmark(again, config, output=tmp_path).result["num_evaluated"] == 9
    assert again.num_clips == 5


def test_another_evaluation_s_parts_stay(checkpoint, small_set, tmp_path):
    """It may be under way, or go on later."""
    interrupt(checkpoint, small_config(small_set), tmp_path)
    other = small_config(small_set, views=ViewsConfig(num_frames=2))
    evaluate(checkpoint, other, tmp_path)
    again = CountingSubject(checkpoint, CPU)
    evaluate_benchmark(again, small_config(small_set), output=tmp_path)
    assert again.num_clips == 1 and not (tmp_path / "parts").exists()


class _Unused(CocaSubject):
    def encode(self, clips, origins):
        raise AssertionError("encodes")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"retrieval": RetrievalConfig(subset="domain=neer")},
            "small-test.jsonl: no example is in 'domain=neer'",
        ),
        ({"classification": ClassificationConfig("klass")}, "small-test.jsonl: no example is in 'klass'"),
    ],
)
def test_an_empty_subset_is_known_before_anything_is_encoded(
    checkpoint, small_set, tmp_path, changes, expected
):
    with pytest.raises(InputError, match=expected):
        evaluate_benchmark(
            _Unused(checkpoint, CPU), small_config(small_set, **changes), output=tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


class _Editing(CocaSubject):
    """Its data set's manifest is written anew while clips are encoded."""

    manifest: Path

    def encode(self, clips, origins):
        self.manifest.write_text(self.manifest.read_text() + "\n")
        return super().encode(clips, origins)


def test_the_hash_is_that_of_the_manifest_that_was_read(checkpoint, copied_set, tmp_path):
    digest = hashlib.sha256(copied_set.read_bytes()).hexdigest()
    subject = _Editing(checkpoint, CPU)
    subject.manifest = copied_set
    outcome = evaluate_benchmark(subject, small_config(copied_set), output=tmp_path / "out")
    assert outcome.result["manifest_sha256"] == digest


def test_names_of_files_may_hold_any_bytes(checkpoint, copied_set, tmp_path):
    """Results are UTF-8 all the same, and give the name back."""
    name = os.fsdecode(b"\xff\xe4.mp4")
    copied_set.with_name("0.mp4").rename(copied_set.with_name(name))
    copied_set.write_text(copied_set.read_text().replace('"0.mp4"', json.dumps(name)))
    evaluate(checkpoint, small_config(copied_set), tmp_path / "out")
    first = json.loads((tmp_path / "out" / "predictions.jsonl").read_text("utf-8").splitlines()[0])
    assert first["path"] == str(copied_set.with_name(name))


def test_names_that_no_file_can_have(checkpoint, copied_set, tmp_path):
    text = copied_set.read_text().replace('"0.mp4"', '"a\\u0000.mp4"')
    copied_set.write_text(text.replace('"1.mp4"', json.dumps("x" * 300 + ".mp4")))
    result = evaluate(checkpoint, small_config(copied_set), tmp_path / "out").result
    assert (result["num_evaluated"], result["num_failed"]) == (7, 2)


class _Diverged(CocaSubject):
    def encode(self, clips, origins):
        encoded = super().encode(clips, origins)
        encoded.embeddings["video"] = encoded.embeddings["video"] * float("nan")
        return encoded


def test_embeddings_that_are_no_numbers(checkpoint, small_set, tmp_path):
    with pytest.raises(
        InputError, match=r"0.mp4 to .*3.mp4: the model's embeddings are not all numbers \(video\)"
    ):
        evaluate_benchmark(_Diverged(checkpoint, CPU), small_config(small_set), output=tmp_path)


def test_processes_that_do_not_share_a_folder(image_run, small_set, tmp_path):
    in_processes(tmp_path, partial(evaluate_apart, image_run, small_config(small_set), tmp_path))
