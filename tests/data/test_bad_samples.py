import json
from pathlib import Path

import pytest

from coca_video.data.bad_samples import (
    BAD_SAMPLES_NAME,
    SHARD,
    BadSample,
    BadSamples,
    Unreadable,
    bad_samples_of,
    reading,
)
from coca_video.errors import InputError


def bad(key: str = "a", kind: str = "picture") -> BadSample:
    return BadSample("data/web", key, kind, f"{key}: is damaged")


def kept(folder: Path, **changes) -> BadSamples:
    settings = {"first_step": 0, "num_seen": 0, "num_samples": 10_000, "max_bad_share": 0.01}
    return BadSamples(folder, **settings | changes)


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / BAD_SAMPLES_NAME).read_text().splitlines()]


def test_they_are_listed_and_counted(tmp_path):
    found = kept(tmp_path)
    found.add(0, [], 100)
    assert not (tmp_path / BAD_SAMPLES_NAME).exists()
    found.add(1, [bad("a"), bad("b", "timeout")], 100)
    found.add(2, [bad("c")], 100)
    assert [(line["step"], line["key"], line["kind"]) for line in lines(tmp_path)] == [
        (1, "a", "picture"),
        (1, "b", "timeout"),
        (2, "c", "picture"),
    ]
    assert lines(tmp_path)[0] == {"step": 1, **vars(bad("a"))}
    assert (found.num_bad, found.num_seen, found.counts) == (3, 300, {"picture": 2, "timeout": 1})


@pytest.mark.parametrize(
    "num_samples, num_seen, most",
    [(10_000, 100, 10), (10_000, 2000, 20), (200, 100, 2), (50, 50, 0)],
)
def test_too_many_end_the_run(tmp_path, num_samples, num_seen, most):
    """One in a hundred of what was seen; of 1,000 as long as fewer were, or of the run if it has no more."""
    found = kept(tmp_path, num_samples=num_samples)
    found.add(0, [bad(str(i)) for i in range(most)], num_seen)
    with pytest.raises(InputError) as caught:
        found.add(1, [bad("last", "crash")], 0)
    counts = f"{most} picture" if most else ""
    assert f"({', '.join(filter(None, ['1 crash', counts]))})" in str(caught.value)
    assert f"{most + 1} of {num_seen} samples cannot be read" in str(caught.value)
    assert str(caught.value).endswith("the last one: last: is damaged")
    assert len(lines(tmp_path)) == most + 1


def test_a_run_that_goes_on_remembers(tmp_path):
    found = kept(tmp_path)
    for step in range(4):
        found.add(step, [bad(str(step))], 10)
    again = kept(tmp_path, first_step=2, num_seen=20)
    assert (again.num_bad, again.num_seen) == (2, 20)
    again.add(2, [bad("2")], 10)
    assert [line["step"] for line in lines(tmp_path)] == [0, 1, 2]


def test_shards_are_listed_once_and_are_no_samples(tmp_path):
    problems = [bad("x.tar", SHARD), bad("y.tar", SHARD)]
    found = kept(tmp_path, max_bad_share=0)
    found.note(problems[:1])
    found.add(3, [], 10)
    again = kept(tmp_path, first_step=3, num_seen=10, max_bad_share=0)
    again.note(problems)
    again.note(problems)
    assert [(line["step"], line["key"]) for line in lines(tmp_path)] == [(0, "x.tar"), (3, "y.tar")]
    assert again.num_bad == 0 and again.counts[SHARD] == 2


@pytest.mark.parametrize(
    "error, kind, message",
    [
        (InputError("x: is\n  damaged"), "video", "x: is damaged"),
        (Unreadable("x: no text", "text"), "text", "x: no text"),
        (FileNotFoundError(2, "No such file", "/x"), "video", "key: FileNotFoundError: No such file"),
        (MemoryError("too\nlarge"), "video", "key: MemoryError: too large"),
        (ValueError(), "video", "key: ValueError: "),
    ],
)
def test_whatever_goes_wrong_is_one_line_with_a_kind(error, kind, message):
    with pytest.raises(Unreadable) as caught:
        with reading("video", "key"):
            raise error
    assert (caught.value.kind, str(caught.value)) == (kind, message)


def test_ctrl_c_is_no_bad_sample():
    with pytest.raises(KeyboardInterrupt):
        with reading("video", "key"):
            raise KeyboardInterrupt


def test_what_a_user_is_told_at_the_end(tmp_path):
    assert bad_samples_of(tmp_path) is None
    found = kept(tmp_path)
    found.note([bad("x.tar", SHARD)])
    assert bad_samples_of(tmp_path) is None
    found.add(0, [bad("a\udcff"), bad("b", "text")], 100)  # a file's name need not be UTF-8
    listed = "lists 2 samples that could not be read (1 picture, 1 text)"
    assert bad_samples_of(tmp_path) == f"{tmp_path / BAD_SAMPLES_NAME}: {listed}"
    assert lines(tmp_path)[1]["key"] == "a\udcff"
