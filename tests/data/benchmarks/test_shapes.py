from collections import Counter

import pytest
from datasets import call, refusal
from PIL import Image
from shapes import by_text

from coca_video.commands.prepare import main
from coca_video.data.benchmarks import shapes_pairs, shapes_questions, shapes_statements
from coca_video.data.benchmarks.card import file_hash, read_card
from coca_video.data.benchmarks.shapes import (
    TASKS,
    ShapesConfig,
    card_of,
    make_scenes,
    manifest_path,
    prepare,
)
from coca_video.data.benchmarks.shapes_balance import answer_of
from coca_video.data.manifest import read_manifest
from coca_video.data.tokenizer import Tokenizer
from coca_video.errors import InputError

SMALL = ShapesConfig(num_pictures={"train": 40, "val": 20, "test": 25})
SMALLEST = {"train": 20, "val": 20, "test": 20}
SPLITS = tuple(SMALL.num_pictures)
EVERY = [(task, split) for task in TASKS for split in SPLITS]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "shapes"
    prepare(root, SMALL, show_progress=False)
    return root


@pytest.mark.parametrize(("task", "split"), EVERY)
def test_manifests_and_their_cards(root, task, split):
    path = manifest_path(root, task, split)
    records, card = read_manifest(path), read_card(path)
    assert len({record.id for record in records}) == len(records) == card.num_listed == card.num_found
    assert card.manifest_sha256 == file_hash(path) and (card.dataset, card.split) == (f"shapes_{task}", split)
    folder = root / "manifests" / ".." / "pictures" / split
    for record in records:
        for picture in filter(None, (record.path, record.second_path)):
            assert picture.is_file() and picture.parent.samefile(folder)


@pytest.mark.parametrize(
    ("task", "families"),
    [
        ("vqa", shapes_questions.families()),
        ("entailment", shapes_statements.families()),
        ("pairs", shapes_pairs.families()),
    ],
)
def test_every_record_is_true_of_its_scene(root, task, families):
    questions = by_text(families)
    for split in SPLITS:
        scenes = make_scenes(split, SMALL)
        for record in read_manifest(manifest_path(root, task, split)):
            shown = scenes[int(record.path.stem)]
            if record.second_path:
                shown = shown, scenes[int(record.second_path.stem)]
            assert questions[record.text].answer(shown) == answer_of(record)


def test_labels(root):
    vqa, entailment, pairs = (read_manifest(manifest_path(root, task, "train")) for task in TASKS[1:])
    assert {each.labels["answer_type"] for each in vqa} == {"number", "yes/no", "other"}
    assert {each.labels["question_type"] for each in vqa} == set(shapes_questions.families())
    assert Counter(each.labels["relation"] for each in entailment).keys() == {
        "entailment",
        "neutral",
        "contradiction",
    }
    assert {each.labels["curtain"] for each in entailment if each.labels["relation"] == "neutral"} == {"yes"}
    texts = {(each.labels["group"], each.text) for each in pairs}
    groups = Counter((each.labels["group"], each.labels["answer"]) for each in pairs)
    assert len(texts) == len({group for group, _ in groups}) and set(groups.values()) == {1, 2}


def test_splits_share_no_picture_and_no_scene(root):
    pictures = [path.read_bytes() for path in root.glob("pictures/*/*.png")]
    scenes = [each for split in SPLITS for each in make_scenes(split, SMALL)]
    assert len(set(pictures)) == len(set(scenes)) == len(scenes) == len(pictures) == 85


def test_everything_follows_from_the_seed(root, tmp_path):
    prepare(tmp_path / "same", SMALL, show_progress=False)
    prepare(tmp_path / "other", ShapesConfig(1, SMALLEST), show_progress=False)
    files = [path.relative_to(root) for path in sorted(root.rglob("*")) if path.is_file()]
    assert len(files) == 85 + 2 * len(EVERY) + 2  # pictures, manifests and cards, tokenizer and examples
    for file in files:
        assert (root / file).read_bytes() == (tmp_path / "same" / file).read_bytes()
        other = tmp_path / "other" / file
        assert not other.exists() or (root / file).read_bytes() != other.read_bytes()


def test_only_the_default_settings_have_an_expected_number():
    default = card_of("vqa", "test", [None] * 7, ShapesConfig())
    assert default.num_expected == 7 and default.notes == ["seed 0, 1,000 pictures of 48 pixels"]
    assert card_of("vqa", "test", [None] * 7, SMALL).num_expected is None


def test_a_broken_run_leaves_no_manifest_of_other_pictures(tmp_path):
    """A folder where a picture should be stands for whatever ends a run."""
    prepare(tmp_path, ShapesConfig(0, SMALLEST), show_progress=False)
    picture = tmp_path / "pictures" / "val" / "000003.png"
    picture.unlink()
    picture.mkdir()
    with pytest.raises(OSError):
        prepare(tmp_path, ShapesConfig(1, SMALLEST), show_progress=False)
    assert not list(tmp_path.rglob("*.jsonl"))


def test_the_command(tmp_path, capsys):
    numbers = ["--num-train", 20, "--num-val", 20, "--num-test", 20]
    assert not call(main, "shapes", "--root", tmp_path, *numbers, "--size", 32, "--seed", 5)
    printed = capsys.readouterr().out
    assert "captions: 20 train, 20 val, 20 test" in printed
    assert "entailment: 33.3 % are right without a picture (3 answers)" in printed
    assert "pairs: 50.0 % are right without a picture (2 answers)" in printed
    assert Image.open(tmp_path / "pictures" / "test" / "000019.png").size == (32, 32)
    assert Image.open(tmp_path / "examples.png").width > 1000
    assert read_card(manifest_path(tmp_path, "vqa", "test")).notes == ["seed 5, 20 pictures of 32 pixels"]


@pytest.mark.parametrize(
    ("option", "found", "message"),
    [
        ("--num-val", 3, "num_val: found 3 pictures, allowed are 20 and more"),
        ("--size", 8, "size: found 8 pixels, allowed are 32 to 1024"),
    ],
)
def test_settings_out_of_range(option, found, message, tmp_path, capsys):
    assert message in refusal(main, "shapes", "--root", tmp_path, option, found, capsys=capsys)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/pictures/train: cannot make this folder"):
        prepare(tmp_path / "file", SMALL, show_progress=False)


def test_the_tokenizer_has_the_words_of_questions_too(root):
    tokenizer = Tokenizer.load(root / "tokenizer.json")
    assert len(tokenizer.encode("how many circles can you see", max_length=99)) <= 8
