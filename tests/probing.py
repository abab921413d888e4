"""Coloured pictures and videos with classes, for probes that learn in a second."""

from pathlib import Path

import numpy as np
import torch
from torchvision.io import encode_png
from videos import save_video

from coca_video.data.manifest import ClipRecord, write_manifest
from coca_video.data.shards import PictureRecord, write_shards
from coca_video.data.sources import Kind
from coca_video.data.transforms import Preprocessing
from coca_video.data.views import ViewsConfig
from coca_video.probes.examples import CopiesConfig, Part, PartConfig, open_part

COLOURS = {"blue": (20, 40, 220), "green": (20, 200, 40), "red": (220, 30, 20)}
SIZE = 16  # of the tiny models' pictures


def write_coloured(root: Path, *, per_class: int = 6) -> Path:
    """pictures/: shards, with one more picture that has no class; val.jsonl: PNGs; test.jsonl: videos."""
    records = [
        PictureRecord(f"{name}-{i}", bytes(_png(name, i)), f"a {name} thing", {"colour": name, "nth": str(i)})
        for name in COLOURS
        for i in range(per_class)
    ]
    records.append(PictureRecord("grey", bytes(_png("red", 99)), "a thing", {"nth": "0"}))
    write_shards(root / "pictures", records, max_per_shard=8, prefix="coloured")
    write_manifest(root / "val.jsonl", [_picture(root, name, 50 + i) for name in COLOURS for i in range(2)])
    write_manifest(
        root / "test.jsonl", [_video(root, name, i) for name in ("green", "red") for i in range(3)]
    )
    return root


def pictures_part(root: Path, *, copies: int = 0, **changes) -> Part:
    """Of the shards; copies are shifted and recoloured."""
    part = _open(PartConfig(str(root / "pictures"), Kind.pictures, **changes))
    settings = CopiesConfig(copies, margin=1.25)
    settings.augmentation.shift, settings.augmentation.color = 0.2, 0.2
    return part.of(part.examples, copies=settings)


def videos_part(root: Path, **views) -> Part:
    return _open(PartConfig(str(root / "test.jsonl"), views=ViewsConfig(**views)))


def _open(config: PartConfig) -> Part:
    return open_part(config, label="colour", frame_size=SIZE, preprocessing=Preprocessing())


def _pixels(name: str, seed: int, *, num_frames: int = 1, width: int = 24) -> np.ndarray:
    """Noisy frames 't h w c' of one colour."""
    noise = np.random.default_rng(seed).integers(-20, 21, (num_frames, 16, width, 3))
    return np.clip(noise + COLOURS[name], 0, 255).astype(np.uint8)


def _png(name: str, seed: int) -> list[int]:
    return encode_png(torch.from_numpy(_pixels(name, seed)[0]).permute(2, 0, 1).contiguous()).tolist()


def _picture(root: Path, name: str, seed: int) -> ClipRecord:
    path = root / "val" / f"{name}-{seed}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(_png(name, seed)))
    return ClipRecord(path, f"a {name} thing", {"colour": name})


def _video(root: Path, name: str, seed: int) -> ClipRecord:
    path = root / "test" / f"{name}-{seed}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_video(path, _pixels(name, seed, num_frames=4 + seed), fps=10)
    return ClipRecord(path, f"a {name} thing", {"colour": name})
