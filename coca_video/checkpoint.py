"""A checkpoint is a folder: weights.safetensors, config.json, tokenizer.json; state/ for training to go on.

It appears under its name only when it is complete. Nothing in it can run code.
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from coca_video.data.tokenizer import Tokenizer
from coca_video.data.transforms import Preprocessing
from coca_video.errors import InputError
from coca_video.layers.positions import resize_grid
from coca_video.models.adaptors import TemporalConfig
from coca_video.models.coca import CoCa, CoCaConfig, build_adaptor

FORMAT = 2
TEMPORARY = ".tmp"  # ends the name of a folder that is being written or removed
TEMPORAL = "temporal."  # how the names of the adaptor's weights begin
TASK_HEAD = "task_head."  # and those of what a task has added


@dataclass
class Checkpoint:
    """A model with what belongs to it. Raises InputError for a tokenizer of another size than the model's."""

    model: CoCa
    tokenizer: Tokenizer
    preprocessing: Preprocessing
    trained_on: list[str]  # the data sets these weights have seen
    path: Path  # its folder, or another package's file of weights
    new_weights: list[str] = field(default_factory=list)  # not in the file, as at the start of training
    task: dict[str, Any] | None = None  # what the model was taught beside CoCa (`tasks.catalogue.task_of`)
    task_weights: dict[str, Tensor] = field(default_factory=dict)  # of its head, by their names in it

    def __post_init__(self) -> None:
        found, wanted = self.tokenizer.vocab_size, self.model.config.text.vocab_size
        if found != wanted:
            raise InputError(f"{self.path}: the tokenizer has {found} ids, the model has {wanted}")

    @property
    def hash(self) -> str:
        """sha256 of the weights' file: names the checkpoint in results."""
        file = self.path if self.path.is_file() else self.path / "weights.safetensors"
        return hashlib.sha256(file.read_bytes()).hexdigest()


@dataclass(frozen=True)
class About:
    """What weights travel with."""

    config: CoCaConfig
    tokenizer: Tokenizer
    preprocessing: Preprocessing
    trained_on: list[str]
    task: dict[str, Any] | None = None  # `Task.describe`, where the weights hold a task's head


def save_checkpoint(
    path: Path,
    *,
    config: CoCaConfig,
    weights: dict[str, Tensor],
    tokenizer: Tokenizer,
    preprocessing: Preprocessing,
    trained_on: list[str],
) -> None:
    """Writes weights that no run can go on from, whole or not at all; replaces what has that name."""
    temporary = path.with_name(path.name + TEMPORARY)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write_weights(temporary, weights, About(config, tokenizer, preprocessing, trained_on))
    shutil.rmtree(path, ignore_errors=True)
    publish(temporary, path)


def write_weights(folder: Path, weights: dict[str, Tensor], about: About) -> None:
    """The files that `load_checkpoint` reads, synced to disk, into a folder that is there.

    Raises OSError where they cannot be written.
    """
    file = folder / "weights.safetensors"
    try:
        save_file({name: _compact(weight) for name, weight in weights.items()}, file)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    description = {
        "format": FORMAT,
        "model": asdict(about.config),
        "preprocessing": asdict(about.preprocessing),
        "trained_on": about.trained_on,
    }
    if about.task is not None:
        description["task"] = about.task
    (folder / "config.json").write_text(json.dumps(description, indent=1))
    (folder / "tokenizer.json").write_text(about.tokenizer.to_json(), encoding="utf-8")
    for name in ("weights.safetensors", "config.json", "tokenizer.json"):
        sync(folder / name)


def _compact(weight: Tensor) -> Tensor:
    """Contiguous, in memory of its own: the file's format has no views."""
    weight = weight.contiguous()
    return weight if weight.untyped_storage().nbytes() == weight.nbytes else weight.clone()


def publish(temporary: Path, path: Path) -> None:
    """Gives a folder, whose files are synced, its name."""
    sync(temporary)
    temporary.rename(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Until a file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_checkpoint(
    path: Path | str, *, temporal: TemporalConfig | None = None, image_size: int | None = None
) -> Checkpoint:
    """The model (in eval mode), tokenizer and preprocessing of a checkpoint, or of a run's newest checkpoint.

    temporal and image_size: see `build_model`. A task's head is beside the model (`tasks.catalogue.task_of`).
    Raises InputError, naming the file, where the folder is no checkpoint or its weights are another model's.
    """
    path = find_checkpoint(Path(path))
    config, preprocessing, trained_on, task = _read_description(path / "config.json")
    file = path / "weights.safetensors"
    weights, of_task = _without_head(_read_weights(file))
    model, new = build_model(config, weights, file, temporal=temporal, image_size=image_size)
    tokenizer = Tokenizer.load(path / "tokenizer.json")
    return Checkpoint(model, tokenizer, preprocessing, trained_on, path, new, task, of_task)


def build_model(
    config: CoCaConfig,
    weights: dict[str, Tensor],
    path: Path,
    *,
    temporal: TemporalConfig | None = None,
    image_size: int | None = None,
) -> tuple[CoCa, list[str]]:
    """The model (in eval mode) of these weights, read from `path`, and the names of its new weights.

    temporal: how a model that has no temporal weights yet, one of pictures say, shall read clips; what the
        adaptor adds is new. A model that has learned an adaptor keeps it.
    image_size: pixels; the table of positions is resized.
    """
    fresh: dict[str, Tensor] = {}
    if temporal is not None and not any(name.startswith(TEMPORAL) for name in weights):
        config = replace(config, temporal=temporal)
        fresh = build_adaptor(config).state_dict(prefix=TEMPORAL)
    model = _with_weights(config, weights | fresh, path)
    if image_size is not None:
        _resize_positions(model, image_size)
    return model, list(fresh)


def find_checkpoint(path: Path) -> Path:
    """The checkpoint folder itself, or the newest in a run's folder."""
    if (path / "config.json").exists():
        return path
    saved = saved_checkpoints(path)
    if not path.exists():
        raise InputError(f"{path}: no such checkpoint")
    if not saved:
        raise InputError(f"{path}: neither a checkpoint (config.json, ...) nor a run with some")
    return saved[-1]


def saved_checkpoints(run: Path) -> list[Path]:
    """A run's complete checkpoints, oldest first."""
    found = (run / "checkpoints").glob("step-*")
    return sorted((path for path in found if path.name.removeprefix("step-").isdecimal()), key=step_of)


def checkpoint_path(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:07d}"


def step_of(checkpoint: Path) -> int:
    """The number in the name of a run's checkpoint."""
    return int(checkpoint.name.removeprefix("step-"))


def _read_description(path: Path) -> tuple[CoCaConfig, Preprocessing, list[str], dict[str, Any] | None]:
    try:
        description = json.loads(path.read_text())
        if description["format"] != FORMAT:
            raise ValueError(f"format {description['format']}, this version reads {FORMAT}")
        model = _dataclass(CoCaConfig, description["model"])
        preprocessing = _dataclass(Preprocessing, description["preprocessing"])
        task = description.get("task")
        if "task" in description and "name" not in task:
            raise ValueError("its task has no name")
        return model, preprocessing, description["trained_on"], task
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(f"{path}: not a coca_video checkpoint's config ({error})") from error


def _dataclass(kind: type, values: dict) -> Any:
    """A config dataclass from plain JSON values: nested dataclasses and enums by their annotations."""
    kinds = get_type_hints(kind)
    unknown = values.keys() - kinds.keys()
    if unknown:
        raise ValueError(f"unknown key {min(unknown)}")
    return kind(**{name: _typed(kinds[name], value) for name, value in values.items()})


def _typed(kind: Any, value: Any) -> Any:
    if is_dataclass(kind):
        return _dataclass(kind, value)
    return kind(value) if isinstance(kind, type) and issubclass(kind, Enum) else value


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: cannot be read as weights ({error})") from error


def _without_head(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """CoCa's weights, and those of a task's head by their names in it."""
    own = {name: weight for name, weight in weights.items() if not name.startswith(TASK_HEAD)}
    return own, {name.removeprefix(TASK_HEAD): weights[name] for name in weights.keys() - own.keys()}


def _with_weights(config: CoCaConfig, weights: dict[str, Tensor], path: Path) -> CoCa:
    """Strict: every weight has its place and every place its weight."""
    with torch.device("meta"):  # no time for random weights that are overwritten at once
        model = CoCa(config)
    expected = model.state_dict()
    wrong = sorted(expected.keys() ^ weights.keys())
    wrong += sorted(n for n in expected.keys() & weights.keys() if expected[n].shape != weights[n].shape)
    if wrong:
        found = f"{len(wrong)} tensors do not fit config.json's model, the first is {wrong[0]}"
        raise InputError(f"{path}: {found}")
    model.to_empty(device="cpu").load_state_dict(weights)
    return model.eval()


def _resize_positions(model: CoCa, image_size: int) -> None:
    patch_size = model.config.image.patch_size
    if image_size < patch_size or image_size % patch_size:
        raise InputError(f"image_size must be a multiple of patch_size {patch_size}, got {image_size}")
    image = replace(model.config.image, image_size=image_size)
    model.config = replace(model.config, image=image)
    positions = model.image_encoder.positions
    positions.table = nn.Parameter(resize_grid(positions.table.detach(), num_patches=image.num_patches))
