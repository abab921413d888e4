"""Where commands begin: hydra composes YAML onto a dataclass, and errors become one line and an exit code."""

import difflib
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)
from yaml import YAMLError

from coca_video.errors import InputError

Config = TypeVar("Config")

PARTIAL = 3  # the exit code of a command that has done its work, but not on all there should be

_BESIDE_PACKAGE = Path(__file__).parent.parent / "configs"  # a checkout
CONFIGS = _BESIDE_PACKAGE if _BESIDE_PACKAGE.exists() else Path(__file__).parent / "configs"  # a wheel


def load_config(
    kind: type[Config],
    name: str,
    overrides: list[str],
    *,
    options: Mapping[str, Mapping[str, type]] = MappingProxyType({}),
) -> Config:
    """configs/{name}.yaml with `overrides` ("key=value", "group=option"), as a checked `kind`.

    options: of groups whose options are dataclasses with their defaults, not files: by group, then name.
    Raises InputError, naming the key, for a key or value that `kind` does not have or allow.
    """
    store = ConfigStore.instance()
    store.store(name=f"{name}_schema", node=kind)
    for group, of_group in options.items():
        store.repo.pop(group, None)  # those of a call before
        for option, node in of_group.items():
            store.store(group=group, name=option, node=node)
    _refuse_options(overrides)
    try:
        with initialize_config_dir(version_base=None, config_dir=str(CONFIGS)):
            composed = compose(config_name=name, overrides=overrides)
        return OmegaConf.to_object(composed)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise InputError(_one_line(error)) from error


def load_option(kind: type[Config], group: str, option: str) -> Config:
    """configs/{group}/{option}.yaml alone, as a checked `kind`: a preset by its name; or a YAML file's path.

    Raises InputError, naming the choices, for an option that is not there, and, naming file and key, for a
    file that is no such configuration.
    """
    is_file = option.endswith((".yaml", ".yml"))
    path = Path(option) if is_file else CONFIGS / group / f"{option}.yaml"
    if not is_file and not path.exists():
        raise InputError(f"{_no_such(group, option)}, or a path that ends in .yaml")
    try:
        settings = OmegaConf.load(path)
        if not isinstance(settings, DictConfig):
            raise ValueError(f"expected settings, as in key: value, got {settings}")
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), settings))
    except OSError as error:
        raise InputError(f"{path}: cannot read this file ({error.strerror or error})") from error
    except OmegaConfBaseException as error:
        raise InputError(f"{path}: {_about_key(error)}") from error
    except (YAMLError, ValueError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from error


def load_launcher(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What hydra's launcher `name`, an option of its group hydra/launcher, is given, defaults included.

    Raises InputError for a launcher that is not installed, or a setting that it does not have or allow.
    """
    try:
        with initialize_config_dir(version_base=None, config_dir=str(CONFIGS)):
            composed = compose(overrides=[f"hydra/launcher={name}"], return_hydra_config=True)
        schema = OmegaConf.structured(OmegaConf.get_type(composed.hydra.launcher))
        return instantiate(OmegaConf.merge(schema, settings)).params
    except MissingConfigException as error:
        hint = "pip install 'coca-video[slurm]'"
        raise InputError(f"hydra/launcher={name}: is not installed; {hint}") from error
    except OmegaConfBaseException as error:
        raise InputError(f"hydra/launcher={name}: {' '.join(str(error).split())}") from error


def _refuse_options(overrides: list[str]) -> None:
    """Hydra would add a key for `+key=value` and remove one for `~key`: no dataclass would see either."""
    for override in overrides:
        if override.startswith(("-", "+", "~")):
            hint = f"settings are written key=value; keys and defaults stand in {CONFIGS}"
            raise InputError(f"{override}: {hint}")


def _one_line(error: Exception) -> str:
    """What hydra says over several lines, its reason in another error, as one that begins with the key."""
    if isinstance(error, OverrideParseException):
        hint = "settings are written key=value; a value with = or , needs quotes: key='a=b'"
        return f"{error.override}: {hint}"
    if isinstance(error, MissingConfigException):
        group, _, option = error.missing_cfg_file.partition("/")
        return _no_such(group, option)
    if missing := re.match("You must specify '(.+?)'", str(error)):
        return f"{missing[1]}= is missing; {_choices(missing[1])}"
    file = re.match(r"In '(.+?)': \w+ raised", str(error))
    for reason in (error.__cause__, error.__context__, error):
        if isinstance(reason, OmegaConfBaseException):
            return (f"{CONFIGS / file[1]}.yaml: " if file else "") + _about_key(reason)
    return " ".join(str(error).split())


def _about_key(error: OmegaConfBaseException) -> str:
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}: is missing; give {error.full_key}=VALUE"
    if isinstance(error, (ConfigKeyError, ConfigAttributeError)):
        if not is_dataclass(error.object_type):  # of what there is none
            group = error.full_key.rpartition(".")[0]
            return f"{error.full_key}: there is no {group} that could have it; {_choices(group)}"
        known = [field.name for field in fields(error.object_type)]
        near = difflib.get_close_matches(error.key, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(known)}"
        return f"{error.full_key}: there is no such key; {hint}"
    return f"{error.full_key}: {_plainly(str(error).splitlines()[0])}"


def _plainly(reason: str) -> str:
    """What OmegaConf says in terms of Python, in terms of settings."""
    if "is not a ListConfig, list or tuple" in reason:
        return "expected a list, as in [a, b]"
    if wrong := re.match(r"Invalid type assigned: (\w+) is not a subclass of \w+\. value: (.*)", reason):
        is_missing = wrong[2] == "{}"  # a setting of what is not in the list
        return "is not there" if is_missing else f"expected settings, as in {{key: value}}, got {wrong[2]}"
    return "must have a value, got null" if reason.endswith("is not Optional") else reason


def _no_such(group: str, option: str) -> str:
    return f"{group}={option}: there is no such {group}; {_choices(group)}"


def _choices(group: str) -> str:
    folder, stored = CONFIGS / group, ConfigStore.instance().repo.get(group, {})
    options = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")}
    options |= {name.removesuffix(".yaml") for name in stored if isinstance(stored, dict)}
    return f"the choices are {', '.join(sorted(options))}"


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one; CUDA without a number is, under torchrun, each process' own.

    Raises InputError for a device that is not here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if name == "cuda" else name
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={device}: not available ({str(error).splitlines()[0]})") from error
    return torch.device(device)


def run(main: Callable[[], int | None]) -> NoReturn:
    """Calls a command, and ends the process with its exit code."""
    sys.exit(exit_code_of(main))


def exit_code_of(main: Callable[[], int | None]) -> int:
    """Calls a command: InputError -> one line on stderr and exit code 2, Ctrl-C -> 130."""
    try:
        return main() or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # no permission, no space, a file where a folder should be
        print(f"error: {error.filename or 'file system'}: {error.strerror or error}", file=sys.stderr)
        return 2
