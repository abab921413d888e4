"""Small real picture files for the tests."""

from pathlib import Path

from PIL import Image


def save_pictures(root: Path, *names: str) -> None:
    """A small picture under every name below `root`, in the format of its ending."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (200, 30, 30)).save(path)
