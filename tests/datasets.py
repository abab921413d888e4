"""A tiny data set laid out as the emoji benchmark's, and commands on it that take a second."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.io import encode_png
from videos import colour, coloured_frames, save_video

from coca_video.cli import run
from coca_video.data.benchmarks.card import write_card
from coca_video.data.benchmarks.emoji import card_of
from coca_video.data.manifest import ClipRecord, write_manifest
from coca_video.data.shards import PictureRecord, write_shards

# (name, skin tone, action) of each clip; in pack 3 five take part in ACTIONS, four in RETRIEVAL.
PACKS = {
    1: [("person juggling", "", "juggling"), ("pizza", "", None), ("red apple", "", None), ("fox", "", None)],
    3: [
        ("person running", "", "running"),
        ("person running: dark skin tone", "dark", "running"),
        ("woman swimming", "", "swimming"),
        ("woman swimming: light skin tone", "light", "swimming"),
        ("man rowing boat", "", "rowing boat"),
        ("ghost", "", None),
    ],
}
PICTURES = ["grinning face", "pizza", "red apple", "fox", "person running", "ghost", "rowing boat", "star"]

TINY_MODEL = [
    "model.image={image_size: 16, patch_size: 8, stem: patch}",
    "model.image={width: 16, num_layers: 1, num_heads: 2, mlp_width: 32}",
    "model.text={vocab_size: 300, context_length: 16, width: 16, num_heads: 2, mlp_width: 32}",
    "model.text={num_unimodal_layers: 1, num_multimodal_layers: 1}",
    "model.embed_dim=12",
    "model.num_caption_queries=4",
    "model.num_pooler_heads=2",
]


def make_emoji_root(root: Path) -> Path:
    """Eight pictures in two shards; clips of one to eleven frames."""
    records = [PictureRecord(f"flat-{i}", _png(i), name, {"name": name}) for i, name in enumerate(PICTURES)]
    write_shards(root / "pictures", records, max_per_shard=5, prefix="flat")
    for pack, clips in PACKS.items():
        folder = root / "clips" / f"pack{pack}"
        folder.mkdir(parents=True)
        manifest = folder.with_suffix(".jsonl")
        write_manifest(
            manifest, [_clip(folder / f"{pack}f{i}.mp4", 1 + 2 * i, *clip) for i, clip in enumerate(clips)]
        )
        write_card(manifest, card_of(pack, num_clips=len(clips)))
    return root


def pictures_source(root: Path, *, batch_size: int = 4) -> str:
    return f"{{kind: pictures, path: '{root / 'pictures'}', batch_size: {batch_size}}}"


def clips_source(manifest: Path, *, batch_size: int = 2) -> str:
    return f"{{kind: clips, path: '{manifest}', batch_size: {batch_size}, num_frames: 3}}"


def training_arguments(output: Path, *sources: str) -> list[str]:
    """Eight steps with all that is random in training: dropout, augmentation, the frames of a clip."""
    return [
        "recipe=emoji/image",
        f"output={output}",
        f"data={{frame_size: 20, num_workers: 0, sources: [{', '.join(sources)}]}}",
        *TINY_MODEL,
        "model.image.dropout=0.1",
        "model.text.dropout=0.1",
        "loop={num_steps: 8, save_every: 4, keep_last: 2, ema_decay: 0.5}",
        "loop.optimizer={lr: 0.01, num_warmup_steps: 2}",
        "device=cpu",
    ]


def mixed_arguments(root: Path, output: Path) -> list[str]:
    manifest = root / "clips" / "pack1.jsonl"
    return training_arguments(output, clips_source(manifest), pictures_source(root))


def call(main: Callable[[], int | None], *arguments: object) -> int | None:
    """A command's result, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tool.py", *map(str, arguments)])
        return main()


def refusal(main: Callable[[], int | None], *arguments: object, capsys: pytest.CaptureFixture) -> str:
    """The one line that a command prints to stderr when it refuses its input."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        call(lambda: run(main), *arguments)
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert end.value.code == 2 and printed.out == "" and len(lines) == 1, printed
    assert printed.err.endswith(lines[0] + "\n"), printed.err
    return lines[0].removeprefix("error: ")


def _png(i: int) -> bytes:
    picture = torch.tensor(colour(i), dtype=torch.uint8).view(3, 1, 1).expand(3, 24, 24)
    return bytes(encode_png(picture.contiguous()).tolist())


def _clip(path: Path, num_frames: int, name: str, skintone: str, action: str | None) -> ClipRecord:
    save_video(path, np.roll(coloured_frames(12, height=64), -num_frames, axis=0)[:num_frames], fps=10)
    labels = {"code": path.stem, "group": "tests", "subgroup": "tiny", "skintone": skintone, "concept": name}
    return ClipRecord(path, name, labels | ({"action": action} if action else {}))
