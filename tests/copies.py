"""Copies of public data sets on disk: annotation files as published, and small real videos."""

import shutil
from pathlib import Path

from videos import coloured_frames, save_video

CODECS = {".webm": "libvpx", ".avi": "mpeg4"}


def write_texts(root: Path, texts: dict[str, str]) -> None:
    """Files by their path below `root`."""
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def write_videos(root: Path, *names: str) -> None:
    """The same two frames under every name below `root`; all names have one ending."""
    first, *others = (root / name for name in names)
    for path in (first, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
    codec = CODECS.get(first.suffix, "libx264")
    save_video(first, coloured_frames(2, height=16, width=16), fps=10, codec=codec, encoding={})
    for path in others:
        shutil.copy(first, path)
