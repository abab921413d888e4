"""Writing files so that they are whole or absent."""

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Writes under a temporary name and renames."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
