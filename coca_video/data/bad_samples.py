"""Samples that training leaves out because they cannot be read: counted, listed, never replaced.

A run's folder has them in `bad_samples.jsonl`, one line each:

    {"step": 12, "source": "data/web", "key": "/data/web/03.tar: sample 17", "kind": "picture", "reason": ...}
"""

import json
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from coca_video.errors import InputError
from coca_video.run_log import drop_steps_from, read_steps

BAD_SAMPLES_NAME = "bad_samples.jsonl"
FEW_SAMPLES = 1000  # the share of bad ones is not judged on fewer, if the run has as many
SHARD = "shard"  # the kind of what is listed and not a sample: how many it would have held nobody knows


@dataclass(frozen=True)
class BadSample:
    source: str  # the path of its source in the settings
    key: str  # names it in messages
    # picture, video: damaged or missing; text: none, or not the label; record: incomplete in its shard;
    # tokens: of the cache; timeout, crash: of the process that read it; shard: cut short
    kind: str
    reason: str  # one line


class Unreadable(InputError):
    """A sample cannot be read. `kind` is that of its BadSample."""

    def __init__(self, message: str, kind: str = "record"):
        super().__init__(message)
        self.kind = kind


@contextmanager
def reading(kind: str, name: str) -> Iterator[None]:
    """Whatever goes wrong within makes the sample `name` an Unreadable one of this kind.

    Any exception: the files of strangers lead decoders to more of them than anyone foresees, and a run of
    weeks must not end by one. What is really a bug happens to many samples, and ends the run by their share.
    """
    try:
        yield
    except Unreadable:
        raise
    except InputError as error:
        raise Unreadable(_in_one_line(str(error)), kind) from error
    except Exception as error:
        found = _in_one_line(str(getattr(error, "strerror", None) or error))
        raise Unreadable(f"{name}: {type(error).__name__}: {found}", kind) from error


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


class BadSamples:
    """Those of a run, of all its processes: kept by one of them, in the run's folder.

    first_step: the step that the run begins or goes on with; what was listed from it on happens again.
    num_seen: samples that were seen before it. num_samples: of the whole run.
    """

    def __init__(
        self, folder: Path, *, first_step: int, num_seen: int, num_samples: int, max_bad_share: float
    ):
        self.path = folder / BAD_SAMPLES_NAME
        folder.mkdir(parents=True, exist_ok=True)
        drop_steps_from(self.path, first_step)
        before = read_steps(self.path) if self.path.exists() else []
        self.counts = Counter(line["kind"] for line in before)
        self.num_seen = num_seen
        self._first_step, self._num_samples, self._max_bad_share = first_step, num_samples, max_bad_share
        self._noted = {(line["source"], line["key"]) for line in before if line["kind"] == SHARD}

    @property
    def num_bad(self) -> int:
        """Samples; shards that are cut short do not count."""
        return self.counts.total() - self.counts[SHARD]

    def add(self, step: int, bad: list[BadSample], num_seen: int) -> None:
        """Lists what step `step` had to leave out, of `num_seen` samples.

        Raises InputError, with the counts by kind, where they have become more than the settings allow.
        """
        self.num_seen += num_seen
        self._write(step, bad)
        judged_on = max(self.num_seen, min(self._num_samples, FEW_SAMPLES))
        if bad and self.num_bad > self._max_bad_share * judged_on:
            kinds = _spoken(self.counts)
            most = math.floor(self._max_bad_share * judged_on)
            limit = f"data.max_bad_share={self._max_bad_share:g} allows {most} of {judged_on:,}"
            found = f"{self.num_bad} of {self.num_seen} samples cannot be read ({kinds}); {limit}"
            raise InputError(f"{self.path}: {found}; the last one: {bad[-1].reason}")

    def note(self, problems: list[BadSample]) -> None:
        """Lists what is wrong with shards, each once in a run's folder; no share of the samples."""
        new = [each for each in problems if (each.source, each.key) not in self._noted]
        self._noted |= {(each.source, each.key) for each in new}
        self._write(self._first_step, new)

    def _write(self, step: int, bad: list[BadSample]) -> None:
        self.counts.update(each.kind for each in bad)
        if bad:  # a run without any has no such file
            lines = [json.dumps({"step": step, **asdict(each)}, ensure_ascii=False) for each in bad]
            # A file name may have bytes that are no UTF-8: JSON says them by escapes.
            with open(self.path, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write("".join(line + "\n" for line in lines))


def bad_samples_of(folder: Path) -> str | None:
    """What a run had to leave out, in a line for its user; None where that is nothing."""
    path = folder / BAD_SAMPLES_NAME
    counts = Counter(line["kind"] for line in read_steps(path)) if path.exists() else Counter[str]()
    num_bad = counts.total() - counts[SHARD]
    return f"{path}: lists {num_bad} samples that could not be read ({_spoken(counts)})" if num_bad else None


def _spoken(counts: Counter[str]) -> str:
    """'2 picture, 1 text': samples by the kind of what is wrong with them."""
    return ", ".join(f"{num} {kind}" for kind, num in sorted(counts.items()) if kind != SHARD)
