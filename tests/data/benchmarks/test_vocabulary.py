import codecs
import json

import pytest
from torchvision.models import ResNet18_Weights
from torchvision.models.video import R3D_18_Weights

from coca_video.data.benchmarks.vocabulary import (
    NAMES,
    TEMPLATES,
    USUAL_TEMPLATES,
    class_list,
    class_names,
    known_in,
    templates,
)
from coca_video.errors import InputError

NUM_CLASSES = {
    "imagenet": 1000,
    "imagenet_a": 200,
    "imagenet_r": 200,
    "kinetics400": 400,
    "kinetics600": 600,
    "kinetics700": 700,
    "moments": 339,
    "ucf101": 101,
    "hmdb51": 51,
    "ssv2": 174,
}
NUM_TEMPLATES = {
    "clip_kinetics": 28,
    "clip_ucf101": 48,
    "clip_imagenet": 80,
    "clip_imagenet_7": 7,
    "plain": 1,
    "photo": 1,
    "video": 1,
}


def test_every_file_is_tested():
    assert known_in(NAMES) == sorted(NUM_CLASSES)
    assert known_in(TEMPLATES) == sorted(NUM_TEMPLATES)


@pytest.mark.parametrize(("name", "count"), NUM_CLASSES.items())
def test_class_lists(name, count):
    classes = class_list(name)
    assert len(classes) == len(set(classes.ids)) == len(classes.names) == count
    assert classes.source and classes.order
    assert all(text and text == text.strip() for text in classes.ids + classes.names)
    assert not any(mark in text for text in classes.names for mark in "_+[]{}")
    assert [classes.index_of[id] for id in classes.ids] == list(range(count))
    assert class_names(name) == [classes.name_of[id] for id in classes.ids]


def test_names_repeat_only_where_clip_has_them_twice():
    repeated = {name: len(class_names(name)) - len(set(class_names(name))) for name in NUM_CLASSES}
    assert {name: count for name, count in repeated.items() if count} == {"imagenet": 2}


@pytest.mark.parametrize(
    ("name", "index", "id", "text"),
    [
        ("imagenet", 0, "n01440764", "tench"),
        ("imagenet", 134, "n02012849", "crane bird"),
        ("imagenet", 999, "n15075141", "toilet paper"),
        ("imagenet_a", 0, "n01498041", "stingray"),
        ("kinetics400", 399, "zumba", "zumba"),
        (
            "kinetics600",
            309,
            "passing american football (not in game)",
            "passing american football (not in game)",
        ),
        ("kinetics700", 18, "baby waking up", "baby waking up"),
        ("moments", 51, "playing+fun", "playing fun"),
        ("ucf101", 36, "HandstandPushups", "Hand Stand Pushups"),
        ("ucf101", 100, "YoYo", "Yo Yo"),
        ("hmdb51", 0, "brush_hair", "brush hair"),
        ("ssv2", 173, "Wiping something off of something", "Wiping something off of something"),
    ],
)
def test_known_classes(name, index, id, text):
    classes = class_list(name)
    assert (classes.ids[index], classes.names[index]) == (id, text)


def test_kinetics_agrees_with_published_checkpoints():
    assert class_names("kinetics400") == R3D_18_Weights.DEFAULT.meta["categories"]


def test_imagenet_stands_in_the_order_of_published_checkpoints():
    """CLIP renamed classes, so that names differ; most still share a word with the original."""
    theirs = ResNet18_Weights.DEFAULT.meta["categories"]
    shared = [
        bool(set(a.lower().split()) & set(b.lower().split()))
        for a, b in zip(class_names("imagenet"), theirs, strict=True)
    ]
    assert sum(shared) > 850
    assert class_list("imagenet").ids == sorted(class_list("imagenet").ids)


@pytest.mark.parametrize("subset", ["imagenet_a", "imagenet_r"])
def test_subsets_of_imagenet_have_its_names(subset):
    imagenet, classes = class_list("imagenet"), class_list(subset)
    assert classes.names == [imagenet.name_of[id] for id in classes.ids]


def test_the_kinetics_share_most_classes():
    """A wrong or shifted list would share little."""
    assert len(set(class_names("kinetics400")) & set(class_names("kinetics700"))) > 360
    assert len(set(class_names("kinetics600")) & set(class_names("kinetics700"))) == 596


@pytest.mark.parametrize(("name", "count"), NUM_TEMPLATES.items())
def test_template_sets(name, count):
    found = templates(name)
    assert len(found) == len(set(found)) == count
    assert all(template.count("{}") == 1 for template in found)
    assert all("juggling" in template.format("juggling") for template in found)
    assert json.loads((TEMPLATES / f"{name}.json").read_text(encoding="utf-8"))["source"]


def test_templates_keep_their_published_grammar():
    assert "a example of a person practicing {}." in templates("clip_kinetics")
    assert "a demonstration of the person performing {}." in templates("clip_ucf101")
    assert templates("clip_imagenet")[-1] == "a tattoo of the {}."
    assert templates("plain") == ["{}"]


def test_usual_templates_exist():
    assert set(USUAL_TEMPLATES.values()) <= set(NUM_TEMPLATES)
    assert set(NUM_CLASSES) <= set(USUAL_TEMPLATES)


def test_templates_of_a_file(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(codecs.BOM_UTF8 + "a film of {}.\r\n\r\n  {} – seen \r\n".encode())
    assert templates(str(path)) == ["a film of {}.", "{} – seen"]


@pytest.mark.parametrize("line", ["a film.", "{} and {}", "{0} of", "a {} {", "{{}}", "{name} {}"])
def test_a_line_that_is_no_template_is_named(tmp_path, line):
    path = tmp_path / "mine.txt"
    path.write_text(f"a film of {{}}.\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"mine\.txt:2: a template needs \{\} once") as error:
        templates(str(path))
    assert line in str(error.value) and "\n" not in str(error.value)


def test_files_that_hold_no_templates(tmp_path):
    path = tmp_path / "empty.txt"
    path.write_text("\n \n", encoding="utf-8")
    with pytest.raises(InputError, match="empty.txt: there are no templates"):
        templates(str(path))
    path.write_bytes(b"caf\xe9 {}\n")
    with pytest.raises(InputError, match="empty.txt: cannot read these templates"):
        templates(str(path))
    with pytest.raises(InputError, match="missing.txt: cannot read these templates"):
        templates(str(tmp_path / "missing.txt"))


@pytest.mark.parametrize(
    ("call", "name", "near"),
    [
        (class_list, "kinetic400", "kinetics400"),
        (class_names, "hmdb", "hmdb51"),
        (templates, "clip_ucf", "clip_ucf101"),
    ],
)
def test_an_unknown_name_lists_the_choices(call, name, near):
    with pytest.raises(
        InputError, match=f"^{name}: there is no such .*; did you mean {near}\\? allowed are .*, "
    ) as error:
        call(name)
    assert "\n" not in str(error.value)


def test_a_name_like_nothing_known():
    with pytest.raises(
        InputError, match="^xyzzy: there is no such list of classes; allowed are hmdb51, imagenet,"
    ):
        class_list("xyzzy")
