import random
from pathlib import Path

import pytest

from coca_video.data.captions import Caption, Captions
from coca_video.data.manifest import ClipRecord
from coca_video.errors import InputError


def record(text: str = "a fox", *more: str, **labels: str) -> ClipRecord:
    return ClipRecord(Path("a.mp4"), text, labels, more_texts=list(more))


def chosen(captions: Captions, record: ClipRecord, seed: int | None = None) -> Caption:
    return captions.choose(record, None if seed is None else random.Random(seed), name="a.mp4")


def test_a_records_own_texts():
    two = record("a fox", "a red fox")
    assert chosen(Captions(), two) == Caption("a fox", "a fox")
    assert {chosen(Captions(), two, seed).text for seed in range(9)} == {"a fox", "a red fox"}
    assert list(Captions().all([two, record("b")])) == ["a fox", "a red fox", "b"]


def test_one_text_asks_for_no_chance():
    """So that the frames drawn after it, or before, are those of older runs."""
    rng = random.Random(0)
    Captions().choose(record(), rng, name="a.mp4")
    assert rng.random() == random.Random(0).random()


def test_prompts():
    captions = Captions(["{}!", "not {}?"], "animal")
    assert chosen(captions, record(animal="cat")) == Caption("cat!", "cat")
    drawn = {chosen(captions, record(animal="cat"), seed) for seed in range(9)}
    assert drawn == {Caption("cat!", "cat"), Caption("not cat?", "cat")}
    records = [record(animal="cat"), record(animal="dog"), record()]
    assert list(captions.all(records)) == ["cat!", "not dog?"]
    assert chosen(Captions(["{}!"]), record()) == Caption("a fox!", "a fox")


def test_published_prompts():
    assert chosen(Captions.of("photo", None), record("fox")).text != "fox"
    assert Captions.of(None, None) == Captions()
    with pytest.raises(InputError, match="there is no such set of templates"):
        Captions.of("foto", None)


@pytest.mark.parametrize(
    "captions, found, message",
    [
        (Captions(), record(" "), "a.mp4: its text is empty"),
        (Captions(["{}!"], "animal"), record(animal=""), "a.mp4: its text is empty"),
        (Captions(["{}!"], "animal"), record(plant="x"), "a.mp4: lacks the label 'animal'; it has plant"),
        (Captions(["{}!"], "animal"), record(), "a.mp4: lacks the label 'animal'; it has no labels"),
    ],
)
def test_nothing_to_say(captions, found, message):
    with pytest.raises(InputError) as caught:
        chosen(captions, found)
    assert str(caught.value) == message


def test_captions_are_of_no_task():
    filler = Captions().filler()
    assert filler == Caption("a", "a") and filler.prompt == "" and filler.target is None
    assert Captions().is_plain and not Captions(["{}!"]).is_plain and Captions().num_pictures == 1
