"""Writing files so that they are whole or absent."""

import os
from pathlib import Path
from uuid import uuid4


def write_whole(path: Path, text: str) -> None:
    """Writes under a temporary name and renames."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_whole_bytes(path: Path, content: bytes) -> None:
    """As `write_whole`; several processes may write the same file at once."""
    partial = path.with_name(f"{path.name}.{uuid4().hex}.part")  # of this write alone
    partial.write_bytes(content)  # a full disk is an OSError
    os.replace(partial, path)
