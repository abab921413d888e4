"""The shapes benchmark: drawn pictures of a few shapes, with captions, questions and statements about them.

`prepare` makes, under one root folder,

    pictures/{train,val,test}/000123.png     two to four shapes on a pale ground, half of them with a curtain
    manifests/captions-{split}.jsonl         four to six captions a picture
    manifests/vqa-{split}.jsonl              questions, as VQA v2's, about what can be seen
    manifests/entailment-{split}.jsonl       statements, as SNLI-VE's; the curtain may hide any shapes
    manifests/pairs-{split}.jsonl            statements about two pictures, as NLVR2's
    tokenizer.json                           of the words in all of these: questions have others than captions
    examples.png                             a few of all of them, to look at

Everything follows from the seed. In each manifest every text has each of its answers equally often, so that
a model which sees no picture is at chance. The splits share no scene.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from tqdm import tqdm

from coca_video.data.benchmarks import shapes_pairs, shapes_questions, shapes_statements
from coca_video.data.benchmarks.card import Card, write_card
from coca_video.data.benchmarks.shapes_balance import (
    Example,
    Group,
    answer_of,
    balanced,
    blind_accuracy,
    groups_of_pairs,
    groups_of_scenes,
)
from coca_video.data.benchmarks.shapes_captions import captions
from coca_video.data.benchmarks.shapes_drawing import as_png, draw
from coca_video.data.benchmarks.shapes_examples import draw_examples
from coca_video.data.benchmarks.shapes_scenes import Scene, make_scene
from coca_video.data.manifest import ClipRecord, write_manifest
from coca_video.data.tokenizer import Tokenizer
from coca_video.errors import InputError
from coca_video.files import write_whole, write_whole_bytes

TASKS = ("captions", "vqa", "entailment", "pairs")
NUM_PICTURES = {"train": 12_000, "val": 1_000, "test": 1_000}
PER_PICTURE = {  # examples of each task
    "train": {"vqa": 5.0, "entailment": 2.5, "pairs": 2.5},
    "val": {"vqa": 1.5, "entailment": 1.5, "pairs": 1.5},
    "test": {"vqa": 3.0, "entailment": 3.0, "pairs": 3.0},
}
MIN_PICTURES = 20  # with fewer, some answers are never right
SIZES = (32, 1024)  # pixels
TOKENIZER_NAME = "tokenizer.json"
VOCAB_SIZE = 2000  # at most: there are fewer words


@dataclass(frozen=True)
class ShapesConfig:
    seed: int = 0
    num_pictures: dict[str, int] = field(default_factory=lambda: dict(NUM_PICTURES))  # by split
    size: int = 48  # of the pictures each way, pixels


def prepare(root: Path, config: ShapesConfig | None = None, *, show_progress: bool = True) -> list[str]:
    """Make pictures, manifests and cards under `root`; returns a summary, line by line.

    What is there of an earlier run is written anew. Raises InputError for settings out of range and for a
    folder that cannot be made.
    """
    config = config or ShapesConfig()
    _check(config)
    for folder in (*(root / "pictures" / split for split in NUM_PICTURES), root / "manifests"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot make this folder: {error.strerror}") from error
    _remove_manifests(root)  # pictures change under them
    made = {split: _make_split(root, split, config, show_progress=show_progress) for split in NUM_PICTURES}
    for split, manifests in made.items():
        for task, records in manifests.items():
            path = manifest_path(root, task, split)
            write_manifest(path, records)
            write_card(path, card_of(task, split, records, config))
    write_whole(root / TOKENIZER_NAME, _tokenizer(made["train"]).to_json())
    examples = root / "examples.png"
    write_whole_bytes(examples, as_png(draw_examples(made["test"])))
    return [*_summary(made), f"examples to look at: {examples}"]


def _tokenizer(manifests: dict[str, list[ClipRecord]]) -> Tokenizer:
    records = [record for records in manifests.values() for record in records]
    texts = (text for record in records for text in (*record.texts, *record.answers))
    return Tokenizer.train(texts, vocab_size=VOCAB_SIZE)


def manifest_path(root: Path, task: str, split: str) -> Path:
    """Where `prepare` puts a manifest."""
    return root / "manifests" / f"{task}-{split}.jsonl"


def make_scenes(split: str, config: ShapesConfig) -> list[Scene]:
    return [
        make_scene(_random(config, split, "scene", number)) for number in range(config.num_pictures[split])
    ]


def _check(config: ShapesConfig) -> None:
    for split, number in config.num_pictures.items():
        if number < MIN_PICTURES:
            raise InputError(f"num_{split}: found {number} pictures, allowed are {MIN_PICTURES} and more")
    if not SIZES[0] <= config.size <= SIZES[1]:
        raise InputError(f"size: found {config.size} pixels, allowed are {SIZES[0]} to {SIZES[1]}")


def _remove_manifests(root: Path) -> None:
    for task in TASKS:
        for split in NUM_PICTURES:
            manifest_path(root, task, split).unlink(missing_ok=True)


def _random(config: ShapesConfig, *names: object) -> Random:
    """Of one thing alone: what else is made does not change it."""
    return Random("/".join(map(str, (config.seed, *names))))


def _make_split(
    root: Path, split: str, config: ShapesConfig, *, show_progress: bool
) -> dict[str, list[ClipRecord]]:
    """Draws the pictures; the records of each task."""
    scenes, folder = make_scenes(split, config), root / "pictures" / split
    paths = [folder / f"{number:06d}.png" for number in range(len(scenes))]
    for number, scene in enumerate(tqdm(scenes, desc=f"pictures {split}", disable=not show_progress)):
        picture = draw(scene, _random(config, split, "shades", number), size=config.size)
        write_whole_bytes(paths[number], as_png(picture))
    return {
        "captions": list(_captions(scenes, paths, split, config)),
        "vqa": [
            _question_record(example, paths, f"{split}-{number:06d}")
            for number, example in enumerate(_examples("vqa", scenes, split, config))
        ],
        "entailment": [
            _statement_record(example, scenes, paths, f"{split}-{number:06d}")
            for number, example in enumerate(_examples("entailment", scenes, split, config))
        ],
        "pairs": list(_pair_records(_groups("pairs", scenes, split, config), paths, split)),
    }


def _captions(
    scenes: list[Scene], paths: list[Path], split: str, config: ShapesConfig
) -> Iterator[ClipRecord]:
    for number, (scene, path) in enumerate(zip(scenes, paths, strict=True)):
        first, *others = captions(scene, _random(config, split, "captions", number))
        yield ClipRecord(path, first, id=f"{split}-{number:06d}", more_texts=others)


def _groups(task: str, scenes: list[Scene], split: str, config: ShapesConfig) -> list[Group]:
    families = {"vqa": shapes_questions, "entailment": shapes_statements, "pairs": shapes_pairs}[
        task
    ].families()
    number = round(PER_PICTURE[split][task] * len(scenes))
    random = _random(config, split, task)
    find = groups_of_pairs if task == "pairs" else groups_of_scenes
    return balanced(families, number, partial(find, scenes=scenes, random=random), random)


def _examples(task: str, scenes: list[Scene], split: str, config: ShapesConfig) -> list[Example]:
    """Of all groups, mixed."""
    examples = [example for group in _groups(task, scenes, split, config) for example in group]
    _random(config, split, task, "order").shuffle(examples)
    return examples


def _question_record(example: Example, paths: list[Path], id: str) -> ClipRecord:
    question, (number,) = example.question, example.scenes
    labels = {"question_type": question.type, "answer_type": question.answer_type}
    return ClipRecord(paths[number], example.text, labels, id, answers=[example.answer])


def _statement_record(example: Example, scenes: list[Scene], paths: list[Path], id: str) -> ClipRecord:
    (number,) = example.scenes
    curtain = "yes" if scenes[number].curtain else "no"
    labels = {"relation": example.answer, "statement_type": example.question.type, "curtain": curtain}
    return ClipRecord(paths[number], example.text, labels, id)


def _pair_records(groups: list[Group], paths: list[Path], split: str) -> Iterator[ClipRecord]:
    for number, group in enumerate(groups):
        name = f"{split}-{number:06d}"
        for place, example in enumerate(group):
            left, right = (paths[scene] for scene in example.scenes)
            labels = {"answer": example.answer, "group": name, "statement_type": example.question.type}
            yield ClipRecord(left, example.text, labels, f"{name}-{place}", second_path=right)


def card_of(task: str, split: str, records: list[ClipRecord], config: ShapesConfig) -> Card:
    """Of one manifest. Only what the default settings make is the benchmark, whose size can be expected."""
    return Card(
        dataset=f"shapes_{task}",
        title=f"shapes, {task}",
        split=split,
        num_expected=len(records) if config == ShapesConfig() else None,
        num_listed=len(records),
        num_found=len(records),
        missing=[],
        annotations={},
        classes=[],
        class_ids=[],
        subsets={},
        notes=[f"seed {config.seed}, {config.num_pictures[split]:,} pictures of {config.size} pixels"],
    )


def _summary(made: dict[str, dict[str, list[ClipRecord]]]) -> list[str]:
    lines = [
        f"{task}: " + ", ".join(f"{len(manifests[task]):,} {split}" for split, manifests in made.items())
        for task in TASKS
    ]
    train, test = made["train"], made["test"]
    for task in TASKS[1:]:
        blind = blind_accuracy(train[task], test[task])
        answers = len(Counter(map(answer_of, test[task])))
        lines.append(f"{task}: {100 * blind:.1f} % are right without a picture ({answers} answers)")
    curtain = blind_accuracy(train["entailment"], test["entailment"], seen=_text_and_curtain)
    lines.append(f"entailment: {100 * curtain:.1f} % are right by the text and whether there is a curtain")
    return lines


def _text_and_curtain(record: ClipRecord) -> tuple[str, str]:
    return record.text, record.labels["curtain"]
