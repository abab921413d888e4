"""Tiny copies of public sets of videos with texts, and what is read from them."""

import json
from pathlib import Path
from typing import Any

from videos import coloured_frames, save_video

from coca_video.data.benchmarks.listing import Files, Listing, PublicSet
from coca_video.data.manifest import read_manifest, write_manifest


def save_videos(folder: Path, *names: str) -> Path:
    """A video of two frames under each name; an avi is one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        codec = "mpeg4" if name.endswith(".avi") else "libx264"
        save_video(folder / name, coloured_frames(2, height=16, width=16), fps=10, codec=codec)
    return folder


def save_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
    return path


def read_set(public_set: PublicSet, root: Path, split: str) -> Listing:
    """The listing of a set that is all in one folder; its records survive a manifest."""
    listing = public_set.read(Files(root, root), split)
    manifest = root / "manifest.jsonl"
    write_manifest(manifest, listing.records)
    assert read_manifest(manifest) == listing.records
    manifest.unlink()
    assert all(record.path.is_file() for record in listing.records)
    assert all(path.is_file() for path in listing.annotations)
    return listing


def texts(listing: Listing) -> dict[str, list[str]]:
    """All texts of every record, by id, in the listing's order."""
    return {record.id: record.texts for record in listing.records}
