"""Where commands begin: hydra composes YAML onto a dataclass, and errors become one line and an exit code."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from coca_video.errors import InputError

Config = TypeVar("Config")

_BESIDE_PACKAGE = Path(__file__).parent.parent / "configs"  # a checkout
CONFIGS = _BESIDE_PACKAGE if _BESIDE_PACKAGE.exists() else Path(__file__).parent / "configs"  # a wheel


def load_config(kind: type[Config], name: str, overrides: list[str]) -> Config:
    """configs/{name}.yaml with `overrides` ("key=value", "group=option"), as a checked `kind`.

    Raises InputError, naming the key, for a key or value that `kind` does not have or allow.
    """
    ConfigStore.instance().store(name=f"{name}_schema", node=kind)
    try:
        with initialize_config_dir(version_base=None, config_dir=str(CONFIGS)):
            composed = compose(config_name=name, overrides=overrides)
        return OmegaConf.to_object(composed)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise InputError(_one_line(error)) from error


def _one_line(error: Exception) -> str:
    """Hydra's messages, which run over lines and hide the reason behind a cause, as one."""
    reasons = [str(e) for e in (error, error.__cause__) if e is not None]
    lines = [line.strip() for reason in reasons for line in reason.splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line and not line.startswith("object_type")))


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one; raises InputError for a device that is not here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={name}: not available ({str(error).splitlines()[0]})") from error
    return torch.device(name)


def run(main: Callable[[], int | None]) -> NoReturn:
    """Calls a command: InputError -> one line on stderr and exit code 2, Ctrl-C -> 130."""
    try:
        code = main() or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
