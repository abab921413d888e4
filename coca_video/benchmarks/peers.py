"""What others offer for the same work, each behind its import door; none is needed to use this package."""

import argparse
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import torch

from coca_video.checkpoint import build_model
from coca_video.errors import InputError
from coca_video.interop.open_clip import infer_config
from coca_video.interop.scheme import from_open_clip
from coca_video.models.adaptors import TemporalConfig
from coca_video.models.coca import CoCa

INSTALL = "pip install 'coca-video[benchmark]'"
OPEN_CLIP = f"the benchmark's peer is open_clip_torch: {INSTALL}"
GENERATE = f"open_clip's generate needs open_clip_torch and transformers < 4.57: {INSTALL}"


def add_model(parser: argparse.ArgumentParser) -> None:
    """The option for the `name` that `coca` takes."""
    parser.add_argument(
        "--model",
        default="coca_ViT-B-32",
        help="open_clip's name, or a file of its settings; default: %(default)s",
    )


def open_clip() -> Any:
    """The module."""
    if importlib.util.find_spec("open_clip") is None:
        raise InputError(OPEN_CLIP)
    return importlib.import_module("open_clip")


def coca_with_generate(name: str) -> tuple[Any, dict[str, str]]:
    """`coca`, and the versions that its captions depend on."""
    if importlib.util.find_spec("open_clip") is None or importlib.util.find_spec("transformers") is None:
        raise InputError(GENERATE)
    version = importlib.import_module("transformers").__version__
    if not importlib.import_module("open_clip.coca_model")._has_transformers:
        raise InputError(f"transformers {version}: {GENERATE}")
    return coca(name), {"open_clip": open_clip().__version__, "transformers": version}


def coca(name: str) -> Any:
    """open_clip's CoCa in eval mode, all of whose weights are random: it leaves one uninitialised.

    name: of a model that open_clip knows, or a file of such a model's settings (.json).
    """
    module = open_clip()
    registered = name
    if name.endswith(".json"):
        registered = Path(name).stem
        module.add_model_config(Path(name))
    if "multimodal_cfg" not in (module.get_model_config(registered) or {}):
        choices = [each for each in module.list_models() if each.startswith("coca_ViT")]
        raise InputError(f"--model {name}: the choices are {', '.join(choices)}")
    torch.manual_seed(0)
    model = module.create_model(registered)
    torch.nn.init.normal_(model.text_decoder.text_projection, std=0.02)
    return model.eval()


def converted(peer: Any, temporal: TemporalConfig | None = None) -> CoCa:
    """Our model with the weights of open_clip's, and how it reads clips."""
    tensors = peer.state_dict()
    config = infer_config(tensors)
    weights = from_open_clip(tensors, config)
    return build_model(config, weights, Path("open_clip"), temporal=temporal)[0]
