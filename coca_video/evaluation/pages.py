"""What all pages share: how their templates are filled in, and files inside them."""

import base64
import re
from pathlib import Path
from typing import Any

import jinja2

from coca_video.errors import InputError

MEDIA_TYPES = {"clip": "video/mp4", "picture": "image/png"}


def page_template(name: str) -> jinja2.Template:
    """One of this folder's templates; in HTML all that is put in is escaped.

    Filters: `md` for texts in Markdown; `words` for a value or several.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"md": _as_markdown, "words": _in_words}
    return environment.get_template(name)


def data_uri(path: Path, what: str) -> str:
    """A file as part of a page; what: one of MEDIA_TYPES.

    Raises InputError, naming the file, if it cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read this {what}: {error}") from error
    return f"data:{MEDIA_TYPES[what]};base64," + base64.b64encode(content).decode("ascii")


def _as_markdown(text: Any) -> str:
    """Text that Markdown shows as it is, in a table too: one line, no sign has a meaning."""
    return re.sub(r"([\\`*_\[\]<>|~&#$])", r"\\\1", " ".join(str(text).split()))


def _in_words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple, dict)) else str(value)
