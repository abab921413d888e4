"""`tools/convert_checkpoint.py`: open_clip's checkpoints in, ours out to its scheme."""

import argparse
import json
from collections import Counter
from pathlib import Path

from coca_video.checkpoint import Checkpoint, save_checkpoint
from coca_video.cli import load_option
from coca_video.errors import InputError
from coca_video.files import write_whole
from coca_video.interop.files import SUFFIXES, write_tensors
from coca_video.interop.open_clip import (
    DESCRIPTION,
    describe,
    expected_shapes,
    export_open_clip,
    flattened,
    refuse_other_architectures,
)
from coca_video.loading import RESIZE_MODES, import_open_clip, load, local_copy, open_clip_file
from coca_video.models.coca import CoCa, CoCaConfig


def main() -> None:
    args = _parser().parse_args()
    if args.output.suffix in SUFFIXES:
        _export(args)
    else:
        _import(args)


def _import(args: argparse.Namespace) -> None:
    is_checkpoint = (args.output / "config.json").exists()
    if args.output.exists() and not (args.force and is_checkpoint):
        hint = "--force replaces it" if is_checkpoint else "it is no checkpoint, and is not replaced"
        raise InputError(f"{args.output}: exists; {hint}")
    file = open_clip_file(local_copy(args.source))
    if file is None:
        hint = f"to export a checkpoint, end OUTPUT in {', '.join(SUFFIXES)}"
        raise InputError(f"{args.source}: holds no open_clip weights; {hint}")
    checkpoint, report = import_open_clip(file, tokenizer=args.tokenizer, image_size=args.image_size)
    _check_expected(checkpoint.model.config, args)
    save_checkpoint(
        args.output,
        config=checkpoint.model.config,
        weights=checkpoint.model.state_dict(),
        tokenizer=checkpoint.tokenizer,
        preprocessing=checkpoint.preprocessing,
        trained_on=checkpoint.trained_on,
    )
    if args.verbose:
        print("\n".join(f"{use.theirs} {use.shape} -> {', '.join(use.ours)}" for use in report.used))
    print(_summary(checkpoint.model))
    print(f"{len(report.used)} tensors used, none missing, none unexpected")
    if report.ignored:
        print(f"ignored: {', '.join(report.ignored)}")
    print(f"written: {args.output}")


def _export(args: argparse.Namespace) -> None:
    described = args.output.with_name(DESCRIPTION)
    for path in (args.output, described):
        if path.exists() and not args.force:
            raise InputError(f"{path}: exists; --force replaces it")
    if args.tokenizer is not None:
        raise InputError(f"--tokenizer {args.tokenizer}: open_clip's files of weights hold no tokenizer")
    checkpoint = load(args.source, image_size=args.image_size)
    _check_expected(checkpoint.model.config, args)
    weights = checkpoint.model.state_dict()
    try:
        tensors = export_open_clip(checkpoint.model.config, weights)
    except ValueError as error:
        raise InputError(f"{args.source}: {error}") from error
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(args.output, tensors)
    write_whole(described, json.dumps(_description(checkpoint), indent=1) + "\n")
    if args.verbose:
        print("\n".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()))
    print(_summary(checkpoint.model))
    print(f"written: {args.output} ({len(tensors)} tensors), {described}")


def _check_expected(config: CoCaConfig, args: argparse.Namespace) -> None:
    """The first tensor or setting in which the model is not the expected preset."""
    if args.expect is None:
        return
    preset = load_option(CoCaConfig, "model", args.expect)
    try:
        found, wanted = _fingerprint(config), _fingerprint(preset)
    except ValueError as error:
        raise InputError(f"--expect {args.expect}: {error}") from error
    for key in found | wanted:
        if found.get(key) != wanted.get(key):
            difference = f"its {key} is {found.get(key)}, expected is {wanted.get(key)}"
            raise InputError(f"{args.source}: is no {args.expect}: {difference}")


def _fingerprint(config: CoCaConfig) -> dict:
    """The shape of each tensor in open_clip's scheme, then the settings that no shape shows."""
    refuse_other_architectures(config)
    return expected_shapes(config) | flattened(describe(config))


def _description(checkpoint: Checkpoint) -> dict:
    """What `open_clip` reads beside the weights."""
    preprocessing = checkpoint.preprocessing
    resize_mode = next(name for name, resize in RESIZE_MODES.items() if resize is preprocessing.resize)
    pixels = {"mean": preprocessing.mean, "std": preprocessing.std}
    return {
        "model_cfg": describe(checkpoint.model.config),
        "preprocess_cfg": {**pixels, "interpolation": "bicubic", "resize_mode": resize_mode},
    }


def _summary(model: CoCa) -> str:
    """The tensors and parameters of each part, and the sizes found."""
    tensors, numbers = Counter(), Counter()
    for name, parameter in model.named_parameters():
        part = name.split(".")[0]
        tensors[part] += 1
        numbers[part] += parameter.numel()
    lines = [f"{part:14}{tensors[part]:5} tensors{numbers[part] / 1e6:9.2f}M parameters" for part in tensors]
    image, text = model.config.image, model.config.text
    lines.append(
        f"image: {image.image_size} px, patches of {image.patch_size}, width {image.width}, "
        f"{image.num_layers} layers, {image.num_heads} heads"
    )
    lines.append(
        f"text: {text.vocab_size} ids, context length {text.context_length}, width {text.width}, "
        f"{text.num_unimodal_layers} + {text.num_multimodal_layers} layers, {text.num_heads} heads"
    )
    queries, heads = model.config.num_caption_queries, model.config.num_pooler_heads
    return "\n".join([*lines, f"pooler: {queries} queries, {heads} heads"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Imports an open_clip checkpoint, or exports to its scheme.")
    source = "open_clip's weights: a file, folder or Hub repository; to export: a checkpoint or run"
    parser.add_argument("source", metavar="SOURCE", help=source)
    output = f"a new checkpoint's folder; a name that ends in {', '.join(SUFFIXES)} is an export"
    parser.add_argument("output", type=Path, metavar="OUTPUT", help=output)
    vocabulary = "CLIP's merges or a tokenizer.json; default: beside the weights, or open_clip's"
    parser.add_argument("--tokenizer", type=Path, metavar="FILE", help=vocabulary)
    parser.add_argument("--image-size", type=int, metavar="PIXELS", help="resize the table of positions")
    preset = "refuse a model of other sizes than configs/model/PRESET.yaml"
    parser.add_argument("--expect", metavar="PRESET", help=preset)
    parser.add_argument("--force", action="store_true", help="replace an existing output")
    parser.add_argument("--verbose", action="store_true", help="print every key")
    return parser
