"""Other packages' models under evaluation: whatever has open_clip's interface.

subject = load_open_clip_subject("open_clip:ViT-B-32/laion2b_s34b_b79k", torch.device("cuda"))
evaluate_benchmark(subject, config, output=Path("runs/laion"))
"""

import importlib
import importlib.util
import re
from collections.abc import Callable
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from coca_video.data.benchmarks.card import file_hash
from coca_video.data.examples import Transformed
from coca_video.data.token_cache import encoder_hash
from coca_video.errors import InputError
from coca_video.evaluation.captioning import DecodingConfig
from coca_video.evaluation.subject import FIRST_FRAME, MEAN_OF_FRAMES, Encoded

PREFIX = "open_clip:"
SCHEMES = ("hf-hub:", "local-dir:")  # open_clip's, of names that bring their weights along
CHUNK = 256  # frames or texts that are encoded at a time
MAX_REASON = 300  # characters of what open_clip says


class OpenClipSubject:
    """A model of pictures with open_clip's interface; a clip's embedding is the mean of its frames'.

    model: has `encode_image`, 'b c h w' -> 'b e', `encode_text`, int 'b l' -> 'b e', and `logit_scale`, a
        logarithm. It is put on `device`, in eval mode.
    transform: PIL picture -> 'c h w'. It can be pickled, as frames are read in other processes.
    tokenizer: list of texts -> int 'b l', a tensor or lists.
    name: what results call it.
    weights: its file, whose hash names it too; None: the model's tensors are hashed.

    Each frame's embedding is made unit length before the mean, and the mean after it, as for zero-shot
    retrieval of videos with CoCa (arXiv 2205.01917) and with Perception Encoder (2504.13181).
    """

    readings = (MEAN_OF_FRAMES, FIRST_FRAME)
    writes_captions = False
    cache = None
    task = None

    def __init__(
        self,
        model: nn.Module,
        transform: Callable[[Image.Image], Tensor],
        tokenizer: Callable[[list[str]], Tensor],
        *,
        device: torch.device,
        name: str,
        weights: Path | None = None,
    ):
        self.model, self.tokenizer = model.to(device).eval(), tokenizer
        self.device, self.name, self.weights = device, name, weights
        self.prepare = Transformed(transform)
        self.scale = model.logit_scale.exp().item()

    def describe(self) -> dict[str, Any]:
        return {
            "checkpoint": self.name,
            "sha256": self._hash,
            "trained_on": [],  # nobody says
            "kind": "open_clip interface",
        }

    def protocol(self) -> dict[str, Any]:
        black = Image.new("RGB", (8, 8))
        size = min(self.prepare.transform(black).shape[-2:])
        return {"image_size": size, "resize": described(self.prepare.transform)}

    @torch.inference_mode()
    def encode(self, clips: list[Tensor], origins: list[dict | None]) -> Encoded:
        frames = [frame for clip in clips for frame in clip]
        chunks = (frames[i : i + CHUNK] for i in range(0, len(frames), CHUNK))
        each = torch.cat([self._unit(self.model.encode_image, torch.stack(chunk)) for chunk in chunks])
        of_clips = each.split([len(clip) for clip in clips])
        means = torch.stack([rows.mean(dim=0) for rows in of_clips])
        first = torch.stack([rows[0] for rows in of_clips])
        return Encoded({MEAN_OF_FRAMES: F.normalize(means, dim=-1), FIRST_FRAME: first})

    @torch.inference_mode()
    def encode_texts(self, texts: list[str]) -> Tensor:
        chunks = (texts[i : i + CHUNK] for i in range(0, len(texts), CHUNK))
        ids = (torch.as_tensor(self.tokenizer(chunk)) for chunk in chunks)
        return torch.cat([self._unit(self.model.encode_text, each) for each in ids])

    def write(self, encoded: Encoded, decoding: DecodingConfig) -> dict[str, list[str]]:
        raise NotImplementedError("open_clip's interface has no captions")

    def _unit(self, encode: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):
            return F.normalize(encode(batch.to(self.device)).float(), dim=-1).cpu()

    @cached_property
    def _hash(self) -> str:
        return file_hash(self.weights) if self.weights else encoder_hash(self.model, {})


def load_open_clip_subject(source: str, device: torch.device) -> OpenClipSubject:
    """A model of the installed open_clip, with its own transform and tokenizer.

    source: "open_clip:MODEL/WEIGHTS", WEIGHTS being one of open_clip's tags or a file (an absolute path makes
        two slashes), or "open_clip:" and a name of open_clip's with a scheme, "hf-hub:owner/name" or
        "local-dir:folder".
    Raises InputError where open_clip is not installed, does not know the model, or cannot have its weights.
    """
    open_clip = _open_clip(source)
    name, weights = _parsed(source, open_clip)
    try:
        model, transform = open_clip.create_model_from_pretrained(name, weights or None)
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # of the network, of other packages that a model needs, assertions
        reason = " ".join(str(error).split())[:MAX_REASON] or repr(error)
        raise InputError(f"{source}: open_clip cannot load it ({reason})") from error
    file = Path(weights) if weights and not open_clip.is_pretrained_cfg(name, weights) else None
    return OpenClipSubject(model, transform, tokenizer, device=device, name=source, weights=file)


def described(transform: Callable) -> str:
    """What a transform says of itself, in one line and the same in every process."""
    text = re.sub(r" object at 0x[0-9a-f]+| at 0x[0-9a-f]+", "", str(transform))
    return " ".join(text.split())


def _open_clip(source: str) -> Any:
    if importlib.util.find_spec("open_clip") is None:
        raise InputError(f"{source}: needs open_clip_torch: pip install 'coca-video[open_clip]'")
    return importlib.import_module("open_clip")


def _parsed(source: str, open_clip: Any) -> tuple[str, str]:
    """The model's name, and a tag or a file, "" for a name with a scheme."""
    name = source.removeprefix(PREFIX)
    if name.startswith(SCHEMES):
        return name, ""
    name, _, weights = name.partition("/")
    known = open_clip.list_models()
    if name not in known:
        similar = ", ".join(get_close_matches(name, known, n=5, cutoff=0.0))
        raise InputError(f"{source}: open_clip has no model {name!r}; it has {similar} and others")
    if not open_clip.is_pretrained_cfg(name, weights) and not Path(weights).is_file():
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none of its own"
        found = f"{weights!r} is neither a file nor a tag" if weights else "no weights are named"
        raise InputError(f"{source}: {found}; the tags of {name} are: {tags}")
    return name, weights
