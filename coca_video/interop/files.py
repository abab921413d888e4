"""Foreign files of tensors, .safetensors or torch's: read without running anything, written whole."""

import os
import re
import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from coca_video.errors import InputError

SUFFIXES = (".safetensors", ".pt", ".bin")
# How files begin that were meant to be weights: what they are instead.
NOT_WEIGHTS = {
    b"version https://git-lfs": "a Git LFS pointer: the weights themselves were not downloaded",
    b"<": "a web page, not weights: the download went wrong",
    b"{": "JSON, not weights",
}


def read_tensors(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """All tensors of a file by name, and the names of what else a training checkpoint holds.

    Raises InputError for a file that is cut short, is something else, or could run code when read.
    """
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise InputError(f"{path}: is empty")
    for begin, what in NOT_WEIGHTS.items():
        if head.lstrip().startswith(begin):
            raise InputError(f"{path}: is {what}")
    if path.suffix == ".safetensors" or head[8:9] == b"{":  # behind the length of the header
        return _read_safetensors(path), []
    if not head.startswith((b"PK", b"\x80")):  # a zip, or a pickle as torch wrote before 1.6
        raise InputError(f"{path}: is neither a safetensors file nor one of torch.save")
    return _state_dict(_read_torch(path, is_zip=head.startswith(b"PK")), path)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """In the format that the name ends in, one of SUFFIXES; under a temporary name at first."""
    partial = path.with_name(path.name + ".part")
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    if path.suffix == ".safetensors":
        save_file(tensors, partial, metadata={"format": "pt"})
    else:
        torch.save(tensors, partial)
    os.replace(partial, path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path}: is cut short or no safetensors file ({error})") from error


def _read_torch(path: Path, *, is_zip: bool) -> Any:
    if is_zip and not is_zipfile(path):  # the list of contents is at the end
        raise InputError(f"{path}: is cut short: its end is missing")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they say of a file, our errors say too
            return torch.load(path, weights_only=True, map_location="cpu", mmap=is_zip)
    except UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        what = f"would run code when read ({asked[1]})" if asked else "is damaged or would run code when read"
        raise InputError(f"{path}: {what}: refused") from error
    except Exception as error:  # a damaged file leads to errors of any kind
        if "TorchScript" in str(error):
            hint = "a TorchScript archive holds code: save the model's state_dict() instead"
            raise InputError(f"{path}: {hint}") from error
        raise InputError(f"{path}: is cut short or no file of torch.save") from error


def _state_dict(content: Any, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors, also where they are one entry of a training checkpoint."""
    beside: list[str] = []
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        beside = [str(name) for name in content if name != "state_dict"]
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: holds no named tensors but {type(content).__name__}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            found = type(value).__name__
            raise InputError(f"{path}: holds {found} at {name}, only named tensors are allowed")
    return content, beside
