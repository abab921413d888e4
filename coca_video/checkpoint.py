"""A checkpoint is a folder: weights.safetensors, config.json, tokenizer.json, state.pt for training to go on.

It appears under its name only when it is complete. Nothing in it can run code: state.pt is read with
torch's weights_only.
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, is_dataclass
from enum import Enum
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from coca_video.data.tokenizer import Tokenizer
from coca_video.data.transforms import Preprocessing
from coca_video.errors import InputError
from coca_video.models.coca import CoCa, CoCaConfig

FORMAT = 1


@dataclass
class Checkpoint:
    model: CoCa
    tokenizer: Tokenizer
    preprocessing: Preprocessing
    trained_on: list[str]  # the data sets these weights have seen
    path: Path

    @property
    def hash(self) -> str:
        """sha256 of the weights' file: names the checkpoint in results."""
        return hashlib.sha256((self.path / "weights.safetensors").read_bytes()).hexdigest()


def save_checkpoint(
    path: Path,
    *,
    config: CoCaConfig,
    weights: dict[str, Tensor],
    tokenizer: Tokenizer,
    preprocessing: Preprocessing,
    trained_on: list[str],
    state: dict,
) -> None:
    """Writes the folder under a temporary name, syncs it to disk and renames it."""
    temporary = path.with_name(path.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in weights.items()}, temporary / "weights.safetensors")
    description = {
        "format": FORMAT,
        "model": asdict(config),
        "preprocessing": asdict(preprocessing),
        "trained_on": trained_on,
    }
    (temporary / "config.json").write_text(json.dumps(description, indent=1))
    (temporary / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    torch.save(state, temporary / "state.pt")
    for file in temporary.iterdir():
        _sync(file)
    _sync(temporary)
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def load_checkpoint(path: Path | str, *, num_time_positions: int = 0) -> Checkpoint:
    """The model (in eval mode), tokenizer and preprocessing of a checkpoint, or of a run's newest checkpoint.

    num_time_positions: give a model without time positions this many, which start at zero.
    Raises InputError, naming the file, where the folder is no checkpoint or its weights are another model's.
    """
    path = find_checkpoint(Path(path))
    config, preprocessing, trained_on = _read_description(path / "config.json")
    are_positions_new = bool(num_time_positions and not config.num_time_positions)
    if are_positions_new:
        config.num_time_positions = num_time_positions
    tokenizer = Tokenizer.load(path / "tokenizer.json")
    if tokenizer.vocab_size != config.text.vocab_size:
        sizes = f"{tokenizer.vocab_size} ids, the model has {config.text.vocab_size}"
        raise InputError(f"{path / 'tokenizer.json'}: the tokenizer has {sizes}")
    model = CoCa(config)
    _load_weights(model, path / "weights.safetensors", are_positions_new=are_positions_new)
    return Checkpoint(model.eval(), tokenizer, preprocessing, trained_on, path)


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
    return sorted(p for p in (run / "checkpoints").glob("step-*") if p.suffix != ".tmp")


def load_state(path: Path) -> dict:
    """What a run needs to go on from a checkpoint, as `save_checkpoint` was given it.

    Raises InputError where the file is missing or damaged.
    """
    path = path / "state.pt"
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        hint = "without its checkpoint the run goes on from an older one"
        raise InputError(f"{path}: missing or damaged; {hint}") from error


def _read_description(path: Path) -> tuple[CoCaConfig, Preprocessing, list[str]]:
    try:
        description = json.loads(path.read_text())
        if description["format"] != FORMAT:
            raise ValueError(f"format {description['format']}, this version reads {FORMAT}")
        model = _dataclass(CoCaConfig, description["model"])
        return model, _dataclass(Preprocessing, description["preprocessing"]), description["trained_on"]
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


def _load_weights(model: CoCa, path: Path, *, are_positions_new: bool) -> None:
    """Strict, but for time positions that the checkpoint never had: they stay zero."""
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: cannot be read as weights ({error})") from error
    expected = model.state_dict()
    if are_positions_new:
        weights["time_positions.table"] = expected["time_positions.table"]
    wrong = sorted(expected.keys() ^ weights.keys())
    wrong += sorted(n for n in expected.keys() & weights.keys() if expected[n].shape != weights[n].shape)
    if wrong:
        found = f"{len(wrong)} tensors do not fit config.json's model, the first is {wrong[0]}"
        raise InputError(f"{path}: {found}")
    model.load_state_dict(weights)
