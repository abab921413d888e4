"""One way to a model with its tokenizer and preprocessing, wherever its checkpoint lies."""

import importlib
import importlib.util
import re
from pathlib import Path

from coca_video.checkpoint import Checkpoint, build_model, load_checkpoint
from coca_video.data.clip_tokenizer import find_clip_vocabulary
from coca_video.data.tokenizer import Tokenizer
from coca_video.data.transforms import Preprocessing, Resize
from coca_video.errors import InputError
from coca_video.interop.open_clip import DESCRIPTION, KeyReport, read_open_clip
from coca_video.models.adaptors import TemporalConfig

OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # preferred first
VOCABULARIES = ("bpe_simple_vocab_16e6.txt.gz", "merges.txt", "tokenizer.json")
HUB_FILES = ("config.json", "weights.safetensors", DESCRIPTION, OPEN_CLIP_WEIGHTS[0], *VOCABULARIES)
HUB_ID = re.compile(r"(?:hf-hub:)?(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
RESIZE_MODES = {"shortest": Resize.center_crop, "squash": Resize.squash}


def load(
    source: str | Path, *, temporal: TemporalConfig | None = None, image_size: int | None = None
) -> Checkpoint:
    """A model (in eval mode) with its tokenizer and preprocessing.

    source: a checkpoint's or a run's folder; a file of open_clip's weights, or a folder with one as on the
        Hugging Face Hub; a Hub repository of either, "owner/name" or "owner/name@revision".
    temporal: how a model of pictures shall read clips; `Checkpoint.new_weights` tells what has to be learned.
    image_size: pixels; the table of positions is resized, bicubic with antialiasing.
    Raises InputError, naming the file or key, for a source that cannot be used.
    """
    path = local_copy(source)
    file = open_clip_file(path)
    if file is None:
        return load_checkpoint(path, temporal=temporal, image_size=image_size)
    return import_open_clip(file, temporal=temporal, image_size=image_size)[0]


def import_open_clip(
    file: Path,
    *,
    tokenizer: Path | None = None,
    temporal: TemporalConfig | None = None,
    image_size: int | None = None,
) -> tuple[Checkpoint, KeyReport]:
    """A checkpoint from open_clip's weights, and what became of each of their tensors.

    tokenizer: a file of CLIP's merges or a tokenizer.json; None = one beside the weights, else open_clip's.
    """
    found = read_open_clip(file)
    model, new = build_model(found.config, found.weights, file, temporal=temporal, image_size=image_size)
    preprocessing = _preprocessing(found.preprocess_cfg, file.with_name(DESCRIPTION))
    vocabulary = Tokenizer.load(tokenizer or _find_vocabulary(file))
    return Checkpoint(model, vocabulary, preprocessing, [], file, new), found.report


def local_copy(source: str | Path) -> Path:
    """The source itself, or the folder that the Hub's repository of that name is kept in.

    Raises InputError where there is neither.
    """
    if Path(source).exists():
        return Path(source)
    repository = None if isinstance(source, Path) else HUB_ID.fullmatch(source)
    if repository is None:
        raise InputError(f"{source}: no such checkpoint")
    if importlib.util.find_spec("huggingface_hub") is None:
        hint = "for a repository of the Hugging Face Hub, pip install 'coca-video[hub]'"
        raise InputError(f"{source}: no such checkpoint; {hint}")
    hub = importlib.import_module("huggingface_hub")
    which = {"repo_id": repository["repository"], "revision": repository["revision"]}
    try:
        folder = Path(hub.snapshot_download(**which, allow_patterns=list(HUB_FILES)))
        if (folder / DESCRIPTION).exists() and open_clip_file(folder) is None:
            hub.snapshot_download(**which, allow_patterns=[OPEN_CLIP_WEIGHTS[1]])
    except (OSError, ValueError) as error:  # the Hub's errors are one of these
        reason = str(error).strip().splitlines()[0]
        where = "neither here nor to be had from the Hugging Face Hub"
        raise InputError(f"{source}: {where} ({reason})") from error
    return folder


def open_clip_file(path: Path) -> Path | None:
    """The file of foreign weights that `path` is or holds; None for a folder of our own."""
    if path.is_file():
        return path
    return next((path / name for name in OPEN_CLIP_WEIGHTS if (path / name).exists()), None)


def _find_vocabulary(file: Path) -> Path:
    beside = (file.with_name(name) for name in VOCABULARIES)
    found = next((path for path in beside if path.exists()), None) or find_clip_vocabulary()
    if found is None:
        hint = f"put {VOCABULARIES[0]} beside it, or pip install 'coca-video[open_clip]', which brings one"
        raise InputError(f"{file}: its tokenizer is missing: {hint}")
    return found


def _preprocessing(settings: dict, path: Path) -> Preprocessing:
    """`preprocess_cfg` of an open_clip description, CLIP's own values where it says nothing."""
    resize_mode = settings.get("resize_mode", "shortest")
    interpolation = settings.get("interpolation", "bicubic")
    if resize_mode not in RESIZE_MODES:
        raise InputError(f"{path}: resize_mode is {resize_mode}, allowed are {', '.join(RESIZE_MODES)}")
    if interpolation != "bicubic":
        raise InputError(f"{path}: interpolation is {interpolation}, only bicubic is allowed")
    mean, std = settings.get("mean", CLIP_MEAN), settings.get("std", CLIP_STD)
    try:
        return Preprocessing(resize=RESIZE_MODES[resize_mode], mean=list(mean), std=list(std))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error
