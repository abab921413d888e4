"""Tiny checkpoints that have learned a task, and small data sets to ask them about."""

from dataclasses import replace
from pathlib import Path

import tiny
import torch
from PIL import Image
from taught import CLASSES, batch_for, inputs_for, with_head
from videos import colour, coloured_frames, save_video

from coca_video.checkpoint import About, write_weights
from coca_video.data.manifest import ClipRecord, write_manifest
from coca_video.data.tokenizer import Tokenizer
from coca_video.data.transforms import Preprocessing
from coca_video.evaluation.subject import CocaSubject
from coca_video.loading import load
from coca_video.models.coca import CoCa
from coca_video.tasks.catalogue import task_of
from coca_video.tasks.choice import Choice
from coca_video.tasks.task import Task

CPU = torch.device("cpu")
QUESTIONS = ["what is it", "is it red", "how many are there", "what colour is it", "is it big", "where is it"]
OTHER_TEXTS = ["two people walk along the old river", "three birds sit together on a wooden fence"]
TYPES = ["other", "yes/no", "number", "other", "yes/no", "other"]
ANSWERS = ["cat", "dog", "fox"]
RELATIONS = ["entailment", "neutral", "contradiction"]


def save_taught(folder: Path, task: Task) -> Path:
    """A checkpoint of random weights, the head's included."""
    tokenizer = Tokenizer.train([*QUESTIONS, *OTHER_TEXTS], vocab_size=tiny.VOCAB_SIZE)
    model = with_head(tiny.shaken(tiny.coca(text=tiny.text_config(context_length=24))), task)
    if isinstance(task, Choice):
        make_undecided(model, task)
    about = About(model.config, tokenizer, Preprocessing(), ["elsewhere"], task.describe())
    folder.mkdir(parents=True)
    write_weights(folder, model.state_dict(), about)
    return folder


@torch.no_grad()
def make_undecided(model: CoCa, task: Choice) -> None:
    """So that what it says depends on what it sees: the mean logit of each class becomes zero."""
    batch = batch_for(replace(task, classes=CLASSES), 32)
    logits = task.predict(model, inputs_for(task, model, batch))
    head = model.task_head
    getattr(head, "classifier", head).classes.bias -= logits.mean(dim=0)


def subject_of(folder: Path, **settings) -> CocaSubject:
    checkpoint = load(folder)
    return CocaSubject(checkpoint, CPU, task=task_of(checkpoint), **settings)


def picture(folder: Path, i: int) -> Path:
    """Two colours, side by side."""
    image = Image.new("RGB", (24, 20), colour(i))
    image.paste(Image.new("RGB", (12, 20), colour(3 * i + 1)), (0, 0))
    path = folder / f"{i}.png"
    image.save(path)
    return path


def question_set(folder: Path, *, annotators: int = 10, types: bool = True) -> Path:
    """Six questions about pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for i, question in enumerate(QUESTIONS):
        answers = [ANSWERS[(i + j // 7) % 3] for j in range(annotators)]
        labels = {"answer_type": TYPES[i]} if types else {}
        records.append(ClipRecord(picture(folder, i), question, labels, id=f"{100 + i}", answers=answers))
    return written(folder, records)


def statement_set(folder: Path) -> Path:
    """Six statements about pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    return written(
        folder,
        [
            ClipRecord(picture(folder, i), text, {"relation": RELATIONS[i % 3]}, id=f"s{i}")
            for i, text in enumerate(QUESTIONS)
        ],
    )


def pair_set(folder: Path) -> Path:
    """Six statements about two pictures each, three of them about the first sentence's."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [picture(folder, i) for i in range(7)]
    records = []
    for i in range(6):
        labels = {"answer": str(i % 2 == 0), "group": f"g{i // 2}"}
        records.append(ClipRecord(paths[i], QUESTIONS[i // 2], labels, f"p{i}", second_path=paths[i + 1]))
    return written(folder, records)


def video_set(folder: Path, *, num_videos: int = 6) -> Path:
    """Videos of three classes, whose left changes with time and whose right does not."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for i in range(num_videos):
        frames = coloured_frames(60, height=24, width=40)[9 * i : 10 * i + 9]
        frames[:, :, 20:] = colour(13 * i)
        path = save_video(folder / f"{i}.mp4", frames, fps=10)
        records.append(ClipRecord(path, f"clip {i}", {"class": ANSWERS[i % 3]}, id=f"v{i}"))
    return written(folder, records)


def written(folder: Path, records: list[ClipRecord]) -> Path:
    path = folder / "own-test.jsonl"
    write_manifest(path, records)
    return path
