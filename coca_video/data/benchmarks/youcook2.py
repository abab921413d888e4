"""YouCook2 (Zhou et al., AAAI 2018): cooking videos, each step of a recipe with its time and a sentence.

    youcookii_annotations_trainval.json
        {"database": {"GLd3aX16zBg": {"subset": "training", "recipe_type": "113", "duration": 241.62,
          "video_url": "...", "annotations": [{"segment": [90, 102], "id": 0, "sentence": "spread ..."}]}}}
    videos/GLd3aX16zBg.mp4           of any video format, in any folder

The splits train and val have a record for each step, "GLd3aX16zBg_0", with its span. Retrieval papers (Miech
et al., ICCV 2019) evaluate the 3,350 steps of val whose videos could still be had: say how many were found.
The splits train_paragraphs and val_paragraphs have a record for each video: its sentences joined by blanks.
"""

from collections.abc import Iterator
from pathlib import Path

from coca_video.data.benchmarks.listing import Files, Listing, PublicSet, need_split
from coca_video.data.benchmarks.video_texts import (
    annotation,
    need_id,
    need_span,
    need_text,
    video_listing,
    without_empty_spans,
)
from coca_video.data.manifest import ClipRecord
from coca_video.data.tables import need_keys, read_json
from coca_video.errors import InputError

SPLITS = {"train": None, "val": None, "train_paragraphs": 1333, "val_paragraphs": 457}
SUBSETS = {"train": "training", "val": "validation"}
PARAGRAPHS = "_paragraphs"


def read(files: Files, split: str) -> Listing:
    """Steps, or whole recipes for a split that ends in "_paragraphs"."""
    need_split(split, SPLITS)
    path = annotation(files, "youcookii_annotations_trainval.json", "youcookii_annotations*.json")
    recipes = _recipes(path, SUBSETS[split.removesuffix(PARAGRAPHS)])
    if split.endswith(PARAGRAPHS):
        records, notes = _paragraphs(recipes), []
    else:
        records, notes = without_empty_spans((step for steps in recipes for step in steps), where=path)
    return video_listing(records, files, annotations=[path], notes=notes)


def _recipes(path: Path, subset: str) -> Iterator[list[ClipRecord]]:
    """The steps of each video, as listed."""
    database = need_keys(read_json(path), ("database",), where=str(path))["database"]
    if not isinstance(database, dict):
        raise InputError(f"{path}: database must be an object, found {str(database)[:60]!r}")
    for name, entry in database.items():
        where = f"{path}: {name}"
        if need_keys(entry, ("subset", "annotations"), where=where)["subset"] == subset:
            if not isinstance(entry["annotations"], list):
                raise InputError(f"{where}: annotations must be a list")
            yield [_step(name, step, where=where) for step in entry["annotations"]]


def _step(name: str, step: dict, *, where: str) -> ClipRecord:
    number = need_id(need_keys(step, ("segment", "id", "sentence"), where=where)["id"], where=where)
    where = f"{where}: step {number}"
    text = need_text(step["sentence"], where=where)
    return ClipRecord(Path(name), text, id=f"{name}_{number}", span=need_span(step["segment"], where=where))


def _paragraphs(recipes: Iterator[list[ClipRecord]]) -> Iterator[ClipRecord]:
    for steps in filter(None, recipes):
        in_order = sorted(steps, key=lambda step: step.span[0])
        name = str(steps[0].path)
        yield ClipRecord(Path(name), " ".join(step.text for step in in_order if step.text), id=name)


SETS = (
    PublicSet(
        "youcook2",
        "YouCook2",
        "youcookii_annotations_trainval.json, videos <YouTube id>.mp4",
        SPLITS,
        read,
    ),
)
