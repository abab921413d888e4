"""The catalogue's tasks with classes of a tiny model, batches for each, and records to ask of."""

import random
from pathlib import Path

import torch
from tiny import texts
from torch import Tensor

from coca_video.data.captions import Caption
from coca_video.data.manifest import ClipRecord
from coca_video.data.samples import Batch
from coca_video.models.coca import CoCa
from coca_video.tasks.classification import Classification
from coca_video.tasks.entailment import Entailment
from coca_video.tasks.picture_pairs import PicturePairs
from coca_video.tasks.question_answering import QuestionAnswering
from coca_video.tasks.task import Task, TaskInputs

CLASSES = ["cat", "dog", "fox"]
SEED = 0


def all_tasks(**changes) -> list[Task]:
    kinds = (Classification, QuestionAnswering, Entailment, PicturePairs)
    return [kind(classes=CLASSES, **changes) for kind in kinds]


def record(text: str = "what is it", *answers: str, second: str | None = None, **labels: str) -> ClipRecord:
    return ClipRecord(Path("a.png"), text, labels, answers=list(answers), second_path=second and Path(second))


def like(task: Task) -> Caption:
    """What the task asks of a record that has everything."""
    second = "b.png" if task.num_pictures > 1 else None
    return task.ask(record("a b", "dog", second=second, **{getattr(task, "label", "_"): "dog"}), None)


def prompted(lengths: list[tuple[int, int]], *, seed: int = SEED) -> tuple[Tensor, Tensor, Tensor]:
    """ids, text_mask and prompt_mask 'b l' of prompts of so many tokens, and of what is behind them."""
    ids, text_mask = texts(*(sum(each) for each in lengths), seed=seed)
    prompt_mask = torch.arange(ids.shape[1]) < torch.tensor([length for length, _ in lengths]).unsqueeze(1)
    return ids, text_mask, prompt_mask


def batch_for(task: Task, num_rows: int = 3, *, seed: int = SEED) -> Batch:
    """Clips of one to three frames, or pairs; prompts and answers of uneven length."""
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    is_pairs = task.num_pictures > 1
    lengths = [(draw.randint(2, 5), draw.randint(1, 4)) for _ in range(num_rows)]
    ids, text_mask, prompt_mask = prompted(lengths, seed=seed)
    num_frames = 2 if is_pairs else 3
    frames = torch.randint(0, 256, (num_rows, num_frames, 3, 16, 16), generator=generator).byte()
    least = num_frames if is_pairs else 1
    num_real = torch.randint(least, num_frames + 1, (num_rows, 1), generator=generator)
    targets = torch.randint(0, len(CLASSES), (num_rows,), generator=generator)
    if like(task).target.is_floating_point():
        targets = torch.eye(len(CLASSES))[targets] * 0.7 + 0.1
    return Batch(
        frames,
        torch.arange(num_frames) < num_real,
        ids,
        text_mask,
        torch.arange(num_rows),
        keys=[str(i) for i in range(num_rows)],
        prompt_mask=prompt_mask,
        targets=targets,
    )


def inputs_for(task: Task, model: CoCa, batch: Batch | None = None) -> TaskInputs:
    """What a step gives the task of a batch."""
    batch = batch or batch_for(task)
    tokens = task.tokens(
        model, batch.frame_mask, lambda: model.encode_frames(batch.frames / 255, batch.frame_mask)
    )
    texts = batch.ids, batch.text_mask, batch.prompt_mask
    return TaskInputs(tokens, batch.frame_mask, *texts, batch.targets)


def with_head(model: CoCa, task: Task, *, seed: int = SEED) -> CoCa:
    """A head that has an opinion: fresh ones give zeros."""
    torch.manual_seed(seed)
    model.task_head = task.head(model.config).train(model.training)
    with torch.no_grad():
        for parameter in model.task_head.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return model
