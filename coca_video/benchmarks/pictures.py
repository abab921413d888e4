"""Shards of small pictures with texts: few different pictures, over and over, each time with another text."""

import io
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from coca_video.data.shards import ShardRecord, write_shards

NUM_DIFFERENT = 256  # pictures
PER_SHARD = 1000  # samples
COLOURS = ("red", "green", "blue", "white", "black")
THINGS = ("cat", "house", "tree", "car", "boat", "street", "table")
PLACES = ("in the park", "by the sea", "at night", "on a hill")
PHRASES = [f"a {colour} {thing} {place}" for thing, place, colour in product(THINGS, PLACES, COLOURS)]


def write_pictures(folder: Path, *, num_samples: int, size: int) -> None:
    """size: of the pictures, pixels a side."""
    write_shards(folder, _samples(num_samples, size), max_per_shard=PER_SHARD, prefix="pictures")


def _samples(num: int, size: int) -> Iterator[ShardRecord]:
    pictures = [_encoded(seed, size) for seed in range(min(num, NUM_DIFFERENT))]
    for i in range(num):
        text = f"{PHRASES[i % len(PHRASES)]}, number {i}"
        yield ShardRecord(f"{i:08d}", pictures[i % len(pictures)], text, labels={})


def _encoded(seed: int, size: int) -> bytes:
    """A png of smooth colours and some noise: as many bytes a pixel as photographs have."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))
    noise = rng.integers(-4, 5, pixels.shape)
    buffer = io.BytesIO()
    Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(buffer, "png")
    return buffer.getvalue()
