"""Small real tar files for the tests."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path


def write_tar(
    path: Path, members: dict[str, bytes] | Iterable[tuple[str, bytes]], *, format: int = tarfile.GNU_FORMAT
) -> Path:
    """`members`: name -> content; as pairs, names may repeat. A name that ends with "/" is a folder."""
    pairs = members.items() if isinstance(members, dict) else members
    with tarfile.open(path, "w", format=format) as archive:
        for name, data in pairs:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            archive.addfile(info, io.BytesIO(data))
    return path


def pair(key: str, text: str = "a text", picture: bytes = b"picture") -> dict[str, bytes]:
    """The members of one sample."""
    return {f"{key}.png": picture, f"{key}.txt": text.encode()}
