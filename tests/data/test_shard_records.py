import json

import pytest

from coca_video.data.shard_records import ShardRecord, describe, encode_record, media_suffix, read_record
from coca_video.errors import InputError


def read(members: dict[str, bytes | dict]) -> ShardRecord:
    encoded = {k: json.dumps(v).encode() if isinstance(v, dict) else v for k, v in members.items()}
    return read_record("a", encoded, encoded.__getitem__, name="x.tar: sample a")


def refusal(members: dict[str, bytes | dict]) -> str:
    with pytest.raises(InputError) as refused:
        read(members)
    message = str(refused.value)
    assert message.startswith("x.tar: sample a") and "\n" not in message
    return message.removeprefix("x.tar: sample a")


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "mp4", "webm", "mkv", "mov", "avi"])
def test_pictures_and_videos(suffix):
    record = read({"txt": b" a text\n", suffix: b"content"})
    assert record == ShardRecord("a", b"content", "a text", {}, suffix)
    assert record.is_video == (suffix in ("mp4", "webm", "mkv", "mov", "avi"))
    assert (record.name, record.texts) == ("x.tar: sample a", ["a text"])


def test_a_video_goes_before_its_still():
    assert media_suffix(["jpg", "txt", "mp4"]) == "mp4"
    assert media_suffix(["txt", "npy"]) is None


def test_only_what_is_needed_is_read():
    members = {"txt": b"a", "png": b"1", "npy": b"large"}
    asked = []
    read_record("a", members, lambda suffix: asked.append(suffix) or members[suffix], name="x")
    assert sorted(asked) == ["png", "txt"]
    describe(members, lambda suffix: asked.append(suffix) or members[suffix], name="x")
    assert asked[2:] == ["txt"]


@pytest.mark.parametrize("name", ["caption", "captions", "text", "texts"])
def test_texts_in_json(name):
    assert read({"png": b"", "json": {name: " one "}}).texts == ["one"]
    several = {"png": b"", "json": {name: ["one", " two", "one"]}}
    assert read(several).texts == ["one", "two"]
    # txt goes first; one text in json is then taken for another form of it, a list for more.
    assert read(several | {"txt": b"zero"}).texts == ["zero", "one", "two"]
    assert read({"png": b"", "json": {name: "one"}, "txt": b"zero"}).texts == ["zero"]


def test_labels():
    found = {"txt": b"a", "png": b""}
    assert read(found | {"json": {"action": "jump"}, "cls": b"7\n"}).labels == {"action": "jump", "cls": "7"}
    assert read(found | {"json": {"cls": "cat"}, "cls": b"7"}).labels == {"cls": "cat"}
    assert read(found | {"json": {"caption": "a", "width": 3, "url": "u"}}).labels == {"url": "u"}


@pytest.mark.parametrize(
    ("value", "seconds"), [(2, 2.0), (2.5, 2.5), (0, None), (-1, None), (float("nan"), None), (10**400, None)]
)
def test_seconds(value, seconds):
    record = read({"txt": b"a", "mp4": b"", "json": {"duration": value, "b": "c"}})
    assert (record.duration, record.labels) == (seconds, {"b": "c"})


def test_a_record_encoded_is_itself():
    record = ShardRecord("a", b"content", "one ü", {"b": "c"}, "mkv", ["two"], 1.5)
    assert read(encode_record(record)) == record


def test_bad_samples_are_one_line():
    picture = {"png": b""}
    assert refusal({"txt": b"a"}).startswith(" lacks a picture or video; it needs one of png, jpg")
    assert refusal(picture) == " lacks a text; it needs txt, or json with caption or text"
    assert refusal(picture | {"json": {"caption": None}}).startswith(" lacks a text")
    assert refusal(picture | {"json": {"captions": []}}).startswith(" lacks a text")
    assert refusal(picture | {"txt": b" \n"}) == ": its text is empty"
    assert refusal(picture | {"json": {"captions": ["a", " "]}}) == ": one of its texts is empty"
    assert refusal(picture | {"txt": b"\xff"}).startswith(": txt must be UTF-8")
    assert refusal(picture | {"txt": b"a", "cls": b"\xff"}).startswith(": txt must be UTF-8")
    for broken in (b"{", b"", b"\xff", b"[" * 100_000):
        assert refusal(picture | {"txt": b"a", "json": broken}).startswith(
            ": txt must be UTF-8 and json valid: "
        )
    assert (
        refusal(picture | {"txt": b"a", "json": b"[]"}) == ": labels must be an object of strings, found []"
    )
    assert refusal(picture | {"txt": b"a", "json": {"n": 1}}) == ": label 'n' must be a string, found 1"
    half = {"caption": "\ud800"}
    assert refusal(picture | {"json": half}).startswith(": its text or labels are not valid Unicode")
    assert refusal(picture | {"txt": b"a", "json": {"b": "\ud800"}}).startswith(": its text or labels")
