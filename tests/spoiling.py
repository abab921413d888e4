"""What happens to publishers' text files on the way: editors and systems change how they are stored."""

from pathlib import Path


def with_bom(path: Path) -> None:
    """Put a byte-order mark before the text."""
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def with_crlf(path: Path) -> None:
    """End lines as Windows does."""
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def with_blank_lines(path: Path) -> None:
    """An empty line behind every line."""
    path.write_bytes(path.read_bytes().replace(b"\n", b"\n\n"))


HARMLESS = (with_bom, with_crlf, with_blank_lines)


def replace(path: Path, old: str, new: str) -> None:
    """Change a text once; `old` must be there."""
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{old!r} is not in {path}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
