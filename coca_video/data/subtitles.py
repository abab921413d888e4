"""Timed captions as SubRip and WebVTT."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Cue:
    """A text shown from `start` to `end`, in seconds."""

    start: float
    end: float
    text: str

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"a cue needs 0 <= start <= end, got start={self.start}, end={self.end}")


def to_srt(cues: Iterable[Cue]) -> str:
    """SubRip: numbered blocks. A cue without text is left out, for a block must hold a line."""
    blocks = []
    for cue in _with_text(cues):
        times = f"{_timestamp(cue.start, ',')} --> {_timestamp(cue.end, ',')}"
        blocks.append(f"{len(blocks) + 1}\n{times}\n{_one_line(cue.text)}\n")
    return "\n".join(blocks)


def to_webvtt(cues: Iterable[Cue]) -> str:
    """WebVTT (https://www.w3.org/TR/webvtt1/). A cue without text is left out."""
    blocks = ["WEBVTT\n"]
    for cue in _with_text(cues):
        times = f"{_timestamp(cue.start, '.')} --> {_timestamp(cue.end, '.')}"
        blocks.append(f"{times}\n{_escape(_one_line(cue.text))}\n")
    return "\n".join(blocks)


def _with_text(cues: Iterable[Cue]) -> list[Cue]:
    return [cue for cue in cues if cue.text.strip()]


def _one_line(text: str) -> str:
    """White space made single: an empty line would end a block early."""
    return " ".join(text.split())


def _escape(text: str) -> str:
    """The characters WebVTT gives a meaning to; without `>` no `-->` is left, which a text may not hold."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _timestamp(seconds: float, decimal_mark: str) -> str:
    """HH:MM:SS and milliseconds. Rounded before it is split, so that 59.9996 is a minute."""
    milliseconds = round(seconds * 1000)
    hours, milliseconds = divmod(milliseconds, 3_600_000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    whole_seconds, milliseconds = divmod(milliseconds, 1000)
    return f"{hours:02}:{minutes:02}:{whole_seconds:02}{decimal_mark}{milliseconds:03}"
