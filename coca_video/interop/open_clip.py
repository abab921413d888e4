"""open_clip's CoCa checkpoints, in and out, with every key accounted for."""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from coca_video.errors import InputError
from coca_video.interop.files import read_tensors
from coca_video.interop.scheme import from_open_clip, rules, to_open_clip
from coca_video.layers.patches import Stem
from coca_video.models.coca import CoCa, CoCaConfig
from coca_video.models.image_encoder import ImageEncoderConfig, ImageStyle
from coca_video.models.poolers import PoolerStyle
from coca_video.models.text_decoder import TextDecoderConfig, TextStyle

DESCRIPTION = "open_clip_config.json"  # beside the weights, in the layout that open_clip uses on the Hub
HEAD_WIDTH, NUM_POOLER_HEADS = 64, 8  # open_clip's defaults; no shape shows the number of heads
BUFFERS = {"text.attn_mask", "text_decoder.attn_mask"}  # causal masks, stored by old versions
# Tensors that the sizes are read from, with their number of dimensions.
SIZES = {
    "visual.conv1.weight": 4,
    "visual.positional_embedding": 2,
    "visual.transformer.resblocks.0.mlp.c_fc.weight": 2,
    "visual.attn_pool.query": 2,
    "visual.proj": 2,
    "text.token_embedding.weight": 2,
    "text.positional_embedding": 2,
    "text.transformer.resblocks.0.mlp.c_fc.weight": 2,
    "text_decoder.text_projection": 2,
}
# Keys of a description that say nothing of the trained model.
UNUSED = {"vision_cfg.patch_dropout", "multimodal_cfg.attn_pooler_heads", "text_cfg.tokenizer_kwargs"}
# What a file seems to be, by how one of its tensors' names begins.
OTHER_MODELS = {
    "image_encoder.": "a coca_video checkpoint's weights: give its folder",
    "text_model.": "a CLIP model of transformers, not CoCa",
    "vit.": "a ViT of transformers, not CoCa",
    "embeddings.patch_embeddings.": "a ViT of transformers, not CoCa",
    "patch_embed.": "a ViT of timm, not CoCa",
}


class UsedKey(NamedTuple):
    theirs: str
    ours: tuple[str, ...]
    shape: tuple[int, ...]  # of theirs


@dataclass
class KeyReport:
    """What became of each tensor of a file, by open_clip's names."""

    used: list[UsedKey] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misfits: list[str] = field(default_factory=list)  # "key (shape), not (shape)"

    def __str__(self) -> str:
        """The faults alone: how many of each kind, and the first few."""
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.misfits}
        return "; ".join(f"{len(keys)} {kind}: {_few(keys)}" for kind, keys in kinds.items() if keys)


@dataclass
class OpenClipModel:
    config: CoCaConfig
    weights: dict[str, Tensor]  # by our names, float32
    report: KeyReport
    preprocess_cfg: dict  # of the description, empty where there is none


def read_open_clip(path: Path) -> OpenClipModel:
    """A file of weights, .safetensors or torch's, with the description beside it if there is one.

    Raises InputError, naming the file, for anything but a whole CoCa of open_clip's: a tensor missing, left
    over or of another shape, or a description that contradicts the tensors.
    """
    tensors, ignored = read_tensors(path)
    tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    ignored += sorted(BUFFERS & tensors.keys())
    tensors = {name: tensor for name, tensor in tensors.items() if name not in BUFFERS}
    described = path.with_name(DESCRIPTION)
    model_cfg, preprocess_cfg = _read_description(described)
    try:
        config = infer_config(tensors, model_cfg=model_cfg)
        report = account(tensors, config, ignored=ignored)
    except ValueError as error:
        raise InputError(f"{path}: not a CoCa of open_clip's: {error}") from error
    if str(report):
        raise InputError(f"{path}: not a CoCa of open_clip's: {report}{_seems(tensors)}")
    _check_description(model_cfg, config, described)
    weights = {name: tensor.float() for name, tensor in from_open_clip(tensors, config).items()}
    return OpenClipModel(config, weights, report, preprocess_cfg)


def infer_config(tensors: dict[str, Tensor], *, model_cfg: dict | None = None) -> CoCaConfig:
    """All sizes from the tensors' shapes, the numbers of heads from open_clip's defaults or its `model_cfg`.

    Raises ValueError where the tensors do not tell.
    """
    shapes = _size_shapes(tensors)
    image_width, _, patch_size, _ = shapes["visual.conv1.weight"]
    vocab_size, width = shapes["text.token_embedding.weight"]
    vision_cfg, text_cfg = (_section(model_cfg, name) for name in ("vision_cfg", "text_cfg"))
    image = ImageEncoderConfig(
        image_size=_side(shapes["visual.positional_embedding"][0]) * patch_size,
        patch_size=patch_size,
        width=image_width,
        num_layers=_num_layers(tensors, "visual.transformer.resblocks"),
        num_heads=_num_heads(image_width, head_width=vision_cfg.get("head_width", HEAD_WIDTH)),
        mlp_width=shapes["visual.transformer.resblocks.0.mlp.c_fc.weight"][0],
        style=ImageStyle.clip,
    )
    text = TextDecoderConfig(
        vocab_size=vocab_size,
        context_length=shapes["text.positional_embedding"][0] - 1,  # the last row is [CLS]'s
        width=width,
        num_unimodal_layers=_num_layers(tensors, "text.transformer.resblocks"),
        num_multimodal_layers=_num_layers(tensors, "text_decoder.resblocks"),
        num_heads=text_cfg.get("heads") or _num_heads(width, head_width=HEAD_WIDTH),
        mlp_width=shapes["text.transformer.resblocks.0.mlp.c_fc.weight"][0],
        style=TextStyle.open_clip,
    )
    return CoCaConfig(
        image=image,
        text=text,
        embed_dim=shapes["visual.proj"][1],
        poolers=PoolerStyle.shared,
        num_caption_queries=shapes["visual.attn_pool.query"][0],
        num_pooler_heads=vision_cfg.get("attn_pooler_heads", NUM_POOLER_HEADS),
    )


def account(tensors: dict[str, Tensor], config: CoCaConfig, *, ignored: list[str]) -> KeyReport:
    """Each tensor, and each place of a model of this config, once.

    Raises ValueError where no model has this config.
    """
    expected, ours = expected_shapes(config), {rule.theirs: rule.ours for rule in rules(config)}
    report = KeyReport(ignored=ignored)
    report.missing = sorted(expected.keys() - tensors.keys())
    report.unexpected = sorted(tensors.keys() - expected.keys())
    for name in expected.keys() & tensors.keys():
        found, wanted = tuple(tensors[name].shape), expected[name]
        if found != wanted:
            report.misfits.append(f"{name} {found}, not {wanted}")
        elif not tensors[name].is_floating_point():
            report.misfits.append(f"{name} {tensors[name].dtype}, not floating point")
    report.used = [UsedKey(name, ours[name], expected[name]) for name in expected if name in tensors]
    return report


def expected_shapes(config: CoCaConfig) -> dict[str, tuple[int, ...]]:
    """The tensors of an open_clip checkpoint of a model of this config."""
    with torch.device("meta"):
        weights = CoCa(config).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in to_open_clip(weights, config).items()}


def export_open_clip(config: CoCaConfig, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Raises ValueError, naming it, for what has no place in open_clip's model."""
    refuse_other_architectures(config)
    placed = {name for rule in rules(config) for name in rule.ours}
    homeless = sorted(weights.keys() - placed)
    if homeless:
        raise ValueError(f"open_clip's CoCa has no place for {len(homeless)} tensors: {_few(homeless)}")
    return to_open_clip(weights, config)


def refuse_other_architectures(config: CoCaConfig) -> None:
    """Raises ValueError for a model that open_clip cannot build."""
    image, text = config.image, config.text
    needed = {
        "image.style": (image.style.value, ImageStyle.clip.value),
        "image.stem": (image.stem.value, Stem.patch.value),
        "text.style": (text.style.value, TextStyle.open_clip.value),
        "poolers": (config.poolers.value, PoolerStyle.shared.value),
        "embed_dim": (config.embed_dim, text.width),
        "text.mlp_width": (text.mlp_width, 4 * text.width),
    }
    for key, (found, allowed) in needed.items():
        if found != allowed:
            raise ValueError(f"open_clip's CoCa has no place for {key} {found}, only for {allowed}")


def describe(config: CoCaConfig) -> dict:
    """The `model_cfg` by which open_clip builds this model."""
    image, text = config.image, config.text
    shared = {
        "context_length": text.context_length,
        "vocab_size": text.vocab_size,
        "width": text.width,
        "heads": text.num_heads,
        "mlp_ratio": text.mlp_width / text.width,
    }
    return {
        "embed_dim": config.embed_dim,
        "vision_cfg": {
            "image_size": image.image_size,
            "patch_size": image.patch_size,
            "width": image.width,
            "layers": image.num_layers,
            "head_width": image.width // image.num_heads,
            "mlp_ratio": image.mlp_width / image.width,
            "attentional_pool": True,
            "attn_pooler_queries": config.num_caption_queries,
            "attn_pooler_heads": config.num_pooler_heads,
            "output_tokens": True,
        },
        "text_cfg": {**shared, "layers": text.num_unimodal_layers, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**shared, "layers": text.num_multimodal_layers},
        "custom_text": True,
    }


def flattened(settings: dict, *, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= flattened(value, prefix=f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _read_description(path: Path) -> tuple[dict, dict]:
    """`model_cfg` and `preprocess_cfg`, empty where there is no such file."""
    if not path.exists():
        return {}, {}
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        model_cfg, preprocess_cfg = description["model_cfg"], description.get("preprocess_cfg", {})
        return dict(model_cfg), dict(preprocess_cfg)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not an open_clip description ({error!r})") from error


def _check_description(model_cfg: dict, config: CoCaConfig, path: Path) -> None:
    """Every setting is the tensors', or off: nothing is left unused that would have changed the model."""
    known = flattened(describe(config))
    for key, value in flattened(model_cfg).items():
        if key in known and value != known[key]:
            raise InputError(f"{path}: {key} is {value}, the weights beside it have {known[key]}")
        if key not in known and key not in UNUSED and value:
            raise InputError(f"{path}: {key} is {value}, which this package's CoCa has not")


def _size_shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    missing = [name for name in SIZES if name not in tensors]
    if missing:
        found = f"{len(missing)} of the {len(SIZES)} tensors that tell its sizes are missing"
        raise ValueError(f"{found}: {_few(missing)}{_seems(tensors)}")
    shapes = {name: tuple(tensors[name].shape) for name in SIZES}
    for name, shape in shapes.items():
        if len(shape) != SIZES[name]:
            raise ValueError(f"{name} has {len(shape)} dimensions, not {SIZES[name]}: {shape}")
    return shapes


def _section(model_cfg: dict | None, name: str) -> dict:
    section = (model_cfg or {}).get(name, {})
    if not isinstance(section, dict):
        raise ValueError(f"{DESCRIPTION}: {name} must hold settings, got {section}")
    for key in ("head_width", "heads", "attn_pooler_heads"):
        value = section.get(key, 1)
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{DESCRIPTION}: {name}.{key} must be a positive number, got {value}")
    return section


def _side(num_positions: int) -> int:
    side = math.isqrt(num_positions - 1)
    if side**2 != num_positions - 1:
        allowed = "one for the class token and a square grid"
        raise ValueError(f"visual.positional_embedding has {num_positions} rows, not {allowed}")
    return side


def _num_layers(tensors: dict[str, Tensor], prefix: str) -> int:
    indices = (re.match(re.escape(prefix) + r"\.(\d+)\.", name) for name in tensors)
    return len({found[1] for found in indices if found})


def _num_heads(width: int, *, head_width: int) -> int:
    if width % head_width:
        hint = f"a {DESCRIPTION} beside the file can tell the number of heads"
        raise ValueError(f"width {width} is no multiple of {head_width}; {hint}")
    return width // head_width


def _seems(names: Iterable[str]) -> str:
    """A guess what the file is instead, "" where there is none."""
    names = list(names)
    for begin, what in OTHER_MODELS.items():
        if any(name.startswith(begin) for name in names):
            return f"; it seems to be {what}"
    towers = {name.split(".")[0] for name in names}
    is_clip = "visual" in towers and "text_decoder" not in towers
    return "; it has no text_decoder.*: a CLIP model, not CoCa" if is_clip else ""


def _few(names: list[str], *, num: int = 3) -> str:
    return ", ".join(names[:num]) + (", ..." if len(names) > num else "")
