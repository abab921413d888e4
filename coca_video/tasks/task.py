"""What a pretrained CoCa can be taught beside its own losses: one file a task.

A task says what is asked of a record, what answers (a head on the model), how wrong an answer is, and how
good all of them are. Everything else is the framework's: reading, distributing, accumulating, averaging,
saving, evaluating.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from coca_video.data.captions import Caption, Record
from coca_video.data.pictures import is_picture
from coca_video.errors import InputError
from coca_video.models.coca import CoCa, CoCaConfig


@dataclass
class TaskInputs:
    """What of a batch a task reads."""

    tokens: Tensor  # 'b t n d', of the image encoder
    frame_mask: Tensor  # bool 'b t', True = real
    ids: Tensor  # int 'b l': prompt and text
    text_mask: Tensor  # bool 'b l'
    prompt_mask: Tensor  # bool 'b l': `begin` and the prompt
    targets: Tensor  # 'b ...', stacked from the captions' targets

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class Judged:
    """How good predictions are."""

    figures: dict[str, Any]  # numbers by name, nested where there are groups
    listed: list[dict]  # of each record, in JSON's terms
    scores: Tensor | None = None  # 'n classes', where there are classes to be confused
    labels: Tensor | None = None  # int 'n'


@dataclass
class Task(ABC):
    """A subclass is a dataclass whose fields are its settings; training keeps them in the checkpoint.

    name: as settings and checkpoints spell it. num_pictures: of a record, 2 for pairs.
    """

    name: ClassVar[str]
    num_pictures: ClassVar[int] = 1

    blind: bool = False  # a baseline that sees no picture: what the text alone gives away

    @abstractmethod
    def ask(self, record: Record, rng: random.Random | None) -> Caption:
        """What is read with a record, and its target; without `rng` always the same.

        Raises InputError, without the record's name, for one that lacks what is needed.
        """

    def question(self, record: Record) -> str:
        """The prompt alone: what the model reads of a record whose answer nobody tells."""
        return self.ask(record, None).prompt

    @abstractmethod
    def head(self, config: CoCaConfig) -> nn.Module:
        """What the task adds to the model, with fresh weights: `model.task_head`."""

    @abstractmethod
    def losses(self, model: CoCa, inputs: TaskInputs) -> dict[str, Tensor]:
        """Of each row, 'b', by name; what has no weight is shown alone."""

    @abstractmethod
    def predict(self, model: CoCa, inputs: TaskInputs) -> Tensor:
        """'b ...'; targets are not looked at."""

    @abstractmethod
    def judge(self, records: list[Record], predictions: Tensor) -> Judged:
        """predictions: 'n views ...', of several views of each record."""

    def tokens(self, model: CoCa, frame_mask: Tensor, encode: Callable[[], Tensor]) -> Tensor:
        """Those that `encode` gives, 'b t n d'; a blind task sees one of zeros for each frame."""
        if not self.blind:
            return encode()
        return torch.zeros(*frame_mask.shape, 1, model.config.image.width, device=frame_mask.device)

    def weights(self) -> dict[str, float]:
        """Of the losses in what is minimised; those that are not named count nothing."""
        return {"task": 1.0}

    def weighted(self, losses: dict[str, Tensor]) -> Tensor:
        """Their weighted sum. Raises ValueError where none of them has a weight."""
        weights = {name: weight for name, weight in self.weights().items() if weight and name in losses}
        if not weights:
            raise ValueError(f"the task {self.name}: none of its losses {', '.join(losses)} has a weight")
        return sum(weight * losses[name] for name, weight in weights.items())

    def prepared(self, records: Iterable[Record]) -> "Task":
        """The task once it has seen the training records: with its classes, say."""
        return self

    def describe(self) -> dict[str, Any]:
        """In JSON's terms: all that makes the task anew."""
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True)
class Asking:
    """A task as what a source says of its records (`data.captions.Teller`)."""

    task: Task
    like: Caption  # of some record: what has no meaning has its shape

    is_plain: ClassVar[bool] = False

    @property
    def num_pictures(self) -> int:
        return self.task.num_pictures

    def choose(self, record: Record, rng: random.Random | None, *, name: str) -> Caption:
        try:
            return _asked(self.task, record, rng)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error

    def all(self, records: Iterable[Record]) -> Iterator[str]:
        for record in records:
            with suppress(InputError):
                asked = _asked(self.task, record, None)
                yield " ".join(filter(None, (asked.prompt, asked.text)))

    def filler(self) -> Caption:
        return Caption("a", "a", "a", torch.zeros_like(self.like.target))


def asking(task: Task, records: Iterable[Record]) -> Asking:
    """Raises InputError if the task can ask nothing of any of the records."""
    reason = "there are none"
    for record in records:
        try:
            return Asking(task, _asked(task, record, None))
        except InputError as error:
            reason = f"{getattr(record, 'name', '')}: {error}"
    raise InputError(f"the task {task.name} can ask nothing of these samples: {reason}")


def check_pictures(task: Task, record: Record) -> None:
    """Raises InputError, without the record's name, for a pair where one is read, and the other way round."""
    files = getattr(record, "files", [])  # a shard's record is a single one
    num_files = max(len(files), 1)
    if num_files != task.num_pictures:
        found = "a pair" if num_files > 1 else "a single file, without second_path"
        wanted = "pairs" if task.num_pictures > 1 else "single files"
        raise InputError(f"the task {task.name} is about {wanted}, found {found}")
    if num_files > 1 and not all(map(is_picture, files)):
        raise InputError(f"the task {task.name} is about pairs of pictures, found a video")


def _asked(task: Task, record: Record, rng: random.Random | None) -> Caption:
    check_pictures(task, record)
    return task.ask(record, rng)
