import shutil

import pytest
import torch
from probing import SIZE, pictures_part, videos_part, write_coloured

from coca_video.data.benchmarks.card import Card, card_path, write_card
from coca_video.data.examples import Examples
from coca_video.data.manifest import read_manifest
from coca_video.data.sources import Kind
from coca_video.data.token_cache import TokenCache
from coca_video.data.transforms import Preprocessing
from coca_video.data.views import ViewsConfig
from coca_video.errors import InputError
from coca_video.probes.examples import CopiesConfig, PartConfig, classes_of, held_out, open_part


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_coloured(tmp_path_factory.mktemp("coloured"))


def test_who_takes_part(root):
    part = pictures_part(root)
    assert [example.label for example in part.examples] == ["blue"] * 6 + ["green"] * 6 + ["red"] * 6
    assert len(pictures_part(root, subset="nth=0")) == 3
    assert {example.label for example in videos_part(root).examples} == {"green", "red"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"label": "color"}, "has the label 'color'; there are colour, nth"),
        ({"subset": "nth=77"}, "'nth=77'"),
    ],
)
def test_a_part_without_examples(root, changes, expected):
    label = changes.pop("label", "colour")
    config = PartConfig(str(root / "pictures"), Kind.pictures, **changes)
    with pytest.raises(InputError, match=expected):
        open_part(config, label=label, frame_size=SIZE, preprocessing=Preprocessing())


def test_views_are_those_of_evaluations(root):
    views = {"num_frames": 2, "num_clips": 2, "num_crops": 3}
    part = videos_part(root, **views)
    assert part.num_items == 6
    records = read_manifest(root / "test.jsonl")
    theirs = Examples(records, ViewsConfig(**views), part.prepare).load(1).views
    ours = part.frames(1, range(6))
    assert len(ours) == 6 and all(map(torch.equal, ours, theirs))
    assert torch.equal(part.frames(1, [4])[0], ours[4])


def test_a_single_view_is_kept_where_evaluations_keep_it(root, tmp_path):
    part = videos_part(root, num_frames=3)
    cache = TokenCache(tmp_path, encoder="e")
    examples = Examples(
        read_manifest(root / "test.jsonl"), ViewsConfig(num_frames=3), part.prepare, cache=cache
    )
    assert [part.origins(i)[0] for i in range(2)] == [examples.load(i).origin for i in range(2)]


def test_everything_that_items_depend_on_is_in_their_origins(root):
    two, three = videos_part(root, num_frames=2, num_clips=2), videos_part(root, num_frames=3, num_clips=2)
    copied = pictures_part(root, copies=2)
    other = pictures_part(root, copies=2)
    other.copies.augmentation.flip = 0.5
    origins = [*two.origins(0), *three.origins(0), *two.origins(1), *copied.origins(0), *other.origins(0)[1:]]
    assert all(origins.count(origin) == 1 for origin in origins)


def test_copies_are_augmented_alike_every_time(root):
    part = pictures_part(root, copies=2)
    plain, first, second = part.frames(3, range(3))
    assert plain.dtype == torch.uint8 and first.shape == plain.shape == (1, 3, SIZE, SIZE)
    assert not torch.equal(first, second) and not torch.equal(first, plain.float())
    assert torch.equal(pictures_part(root, copies=5).frames(3, [2])[0], second)
    assert part.origins(3) == pictures_part(root, copies=5).origins(3)[:3]


def test_what_is_held_out(root, tmp_path):
    part = pictures_part(root, copies=2)
    kept, held = held_out(part, 0.3)
    assert held.num_items == 1 and kept.num_items == 3
    assert {e.index for e in kept.examples} | {e.index for e in held.examples} == set(range(18))
    assert 0 < len(held) < 18 and len(kept) + len(held) == 18
    elsewhere = pictures_part(shutil.copytree(root, tmp_path / "elsewhere"))
    assert [e.index for e in held_out(elsewhere, 0.3)[1].examples] == [e.index for e in held.examples]
    with pytest.raises(InputError, match="val_share=1e-09 holds out 0 of 18 examples; give probe.val"):
        held_out(part, 1e-9)


def test_classes(root):
    classes = classes_of([videos_part(root), pictures_part(root)], label="colour")
    assert classes.ids == classes.names == ["blue", "green", "red"]
    few = classes_of([videos_part(root)], label="colour")
    example = pictures_part(root).examples[0]
    with pytest.raises(InputError, match="pictures: .*blue-0 is 'blue', none of the 2 classes learned"):
        few.number(example, where="pictures")
    part = pictures_part(root)
    with pytest.raises(InputError, match="at least two classes are needed, label 'colour' has only 'blue'"):
        classes_of([part.of(part.examples[:3])], label="colour")


def test_classes_of_a_card(tmp_path):
    root = write_coloured(tmp_path)
    text = (root / "test.jsonl").read_text()
    (root / "test.jsonl").write_text(text.replace('"colour"', '"class"'))
    facts = {"num_expected": None, "num_listed": 6, "num_found": 6, "missing": [], "annotations": {}}
    names = {"classes": ["Red", "Blue", "Green"], "class_ids": ["red", "blue", "green"]}
    about = {"dataset": "d", "title": "D", "split": "s", "subsets": {}, "notes": []}
    write_card(root / "test.jsonl", Card(**about, **facts, **names))
    assert card_path(root / "test.jsonl").exists()
    config = PartConfig(str(root / "test.jsonl"))
    part = open_part(config, label="class", frame_size=SIZE, preprocessing=Preprocessing())
    classes = classes_of([part], label="class")
    assert (classes.ids, classes.names) == (["red", "blue", "green"], ["Red", "Blue", "Green"])


def test_refused_settings():
    with pytest.raises(ValueError, match="path must name"):
        PartConfig("")
    with pytest.raises(ValueError, match="number must not be negative and margin at least 1, got -1 and 1.0"):
        CopiesConfig(-1)
