"""Benchmarks run in the test's process, in sizes that take a second."""

import json
from pathlib import Path

import torch

from coca_video.benchmarks.report import Result
from coca_video.commands.benchmark import benchmark, parse


def run(name: str, *options: object) -> Result:
    args = parse([name, *map(str, options), "--threads", "1", "--device", "cpu"])
    return benchmark(name).run(args, torch.device("cpu"))


def tiny_settings(folder: Path) -> Path:
    """A file of an open_clip CoCa's settings: 32 pixels, two layers in each tower."""
    text = {"context_length": 20, "vocab_size": 300, "width": 64, "heads": 1, "layers": 2}
    vision = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2}
    pooler = {"attentional_pool": True, "attn_pooler_queries": 7, "attn_pooler_heads": 8}
    settings = {
        "embed_dim": 64,
        "vision_cfg": vision | pooler | {"output_tokens": True},
        "text_cfg": text | {"embed_cls": True, "output_tokens": True},
        "multimodal_cfg": text,
        "custom_text": True,
    }
    path = folder / "coca_tiny.json"
    path.write_text(json.dumps(settings))
    return path
