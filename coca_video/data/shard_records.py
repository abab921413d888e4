"""What the members of a shard's sample say: the picture or video, its texts, its labels."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from coca_video.data.bad_samples import Unreadable
from coca_video.data.manifest import check_labels
from coca_video.errors import InputError

PICTURES = ("png", "jpg", "jpeg", "webp")
VIDEOS = ("mp4", "webm", "mkv", "mov", "avi")
MAX_SECONDS = 10**9  # JSON can hold integers that are no float
TEXTS = ("caption", "captions", "text", "texts")  # in key.json: a string or a list of them


@dataclass
class ShardRecord:
    """One encoded picture or video, the text that describes it, and what else is known of it."""

    key: str
    encoded: bytes  # a whole file of its format; png, where this package made it
    text: str
    labels: dict[str, str]
    suffix: str = "png"  # of its format
    more_texts: list[str] = field(default_factory=list)  # that describe it too
    duration: float | None = None  # of a video, seconds, where the json says it
    name: str = field(default="", compare=False)  # shard and key, for messages

    @property
    def texts(self) -> list[str]:
        return [self.text, *self.more_texts]

    @property
    def is_video(self) -> bool:
        return self.suffix in VIDEOS


class Description(NamedTuple):
    """What is known of a picture or video without looking at it."""

    texts: list[str]  # at least one; none is empty
    labels: dict[str, str]
    duration: float | None  # seconds


def media_suffix(suffixes: Iterable[str]) -> str | None:
    """The format of a sample's video, or else its picture, which may be a still of the video."""
    found = set(suffixes)
    return next((suffix for suffix in (*VIDEOS, *PICTURES) if suffix in found), None)


def read_record(key: str, suffixes: Iterable[str], read: Callable[[str], bytes], *, name: str) -> ShardRecord:
    """The sample whose members have these suffixes; `read` gives the content of one.

    Raises InputError, beginning with `name`, for a sample without picture or video, or without text.
    """
    suffixes = list(suffixes)
    suffix = media_suffix(suffixes)
    if suffix is None:
        wanted = ", ".join((*PICTURES, *VIDEOS))
        raise InputError(f"{name} lacks a picture or video; it needs one of {wanted}")
    texts, labels, duration = describe(suffixes, read, name=name)
    return ShardRecord(key, read(suffix), texts[0], labels, suffix, texts[1:], duration, name)


def describe(suffixes: Iterable[str], read: Callable[[str], bytes], *, name: str) -> Description:
    """Of a sample's txt, json and cls members; raises InputError, beginning with `name`."""
    found = {suffix: read(suffix) for suffix in suffixes if suffix in ("txt", "json", "cls")}
    try:
        plain = {suffix: found[suffix].decode().strip() for suffix in ("txt", "cls") if suffix in found}
        entry = json.loads(found.get("json", b"{}"))
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{name}: txt must be UTF-8 and json valid: {reason}") from error
    texts, labels, duration = _of_json(entry) if isinstance(entry, dict) else ([], entry, None)
    labels = check_labels(labels, where=name)
    if "cls" in plain:
        labels = {"cls": plain["cls"]} | labels
    if "txt" in plain:
        texts = [plain["txt"], *(texts if len(texts) > 1 else [])]
    texts = list(dict.fromkeys(texts))
    if not texts:
        raise Unreadable(f"{name} lacks a text; it needs txt, or json with caption or text", "text")
    _check_text(texts, labels, name=name)
    return Description(texts, labels, duration)


def encode_record(record: ShardRecord) -> dict[str, bytes]:
    """The members that `read_record` makes this of."""
    taken = sorted({*TEXTS} & {*record.labels})
    if taken:
        raise InputError(f"sample key {record.key!r}: a label must not be named {taken[0]!r}, as texts are")
    about: dict[str, Any] = dict(record.labels)
    if record.more_texts:
        about["captions"] = record.texts
    if record.duration is not None:
        about["duration"] = record.duration
    encoded = json.dumps(about, ensure_ascii=False).encode()
    return {record.suffix: record.encoded, "txt": record.text.encode(), "json": encoded}


def _of_json(entry: dict[str, Any]) -> tuple[list[str], Any, float | None]:
    """Texts, labels and seconds. A json with a text has numbers and nulls of the download, which are none."""
    entry = dict(entry)
    duration = None
    if type(entry.get("duration")) in (int, float):
        seconds = entry.pop("duration")
        duration = float(seconds) if 0 < seconds < MAX_SECONDS else None
    if not any(name in entry for name in TEXTS):
        return [], entry, duration
    texts = next((found for name in TEXTS if (found := _strings(entry.get(name)))), [])
    labels = {name: value for name, value in entry.items() if isinstance(value, str) and name not in TEXTS}
    return texts, labels, duration


def _strings(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [each.strip() for each in values if isinstance(each, str)]


def _check_text(texts: list[str], labels: dict[str, str], *, name: str) -> None:
    if not all(texts):
        which = "its text" if len(texts) == 1 else "one of its texts"
        raise Unreadable(f"{name}: {which} is empty", "text")
    try:
        "".join((*texts, *labels, *labels.values())).encode()
    except UnicodeEncodeError as error:  # JSON can hold half of a character
        raise InputError(f"{name}: its text or labels are not valid Unicode ({error.reason})") from error
