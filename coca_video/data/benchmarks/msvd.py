"""MSVD (Chen and Dolan, ACL 2011): short YouTube clips, each with about forty captions.

    AllVideoDescriptions.txt      a header, then lines as: -4wsuPCjDBc_5_15 a squirrel is eating a peanut
    train_list.txt, val_list.txt, test_list.txt      names of clips, one a line: -4wsuPCjDBc_5_15
    YouTubeClips/-4wsuPCjDBc_5_15.avi

The split is that of Venugopalan et al. (NAACL 2015). Captions may also stand in raw-captions.json,
msvd_captions.json or captions.json: {"-4wsuPCjDBc_5_15": ["a squirrel is eating a peanut", ...]}, where a
caption may be a list of words. raw-captions.pkl, which others give out, is a pickle: reading one runs
whatever code its author wrote, so it is not read here.
"""

import re
from pathlib import Path

from coca_video.data.benchmarks.listing import Files, Listing, PublicSet, need_split
from coca_video.data.benchmarks.video_texts import (
    annotation,
    need_text,
    optional_annotation,
    read_names,
    video_listing,
)
from coca_video.data.manifest import ClipRecord
from coca_video.data.tables import read_json, read_text
from coca_video.errors import InputError

SPLITS = {"train": 1200, "val": 100, "test": 670}
CAPTIONS = ("AllVideoDescriptions.txt", "raw-captions.json", "msvd_captions.json", "captions.json")
CLIP_NAME = re.compile(r"\S{11}_\d+_\d+")  # YouTube id, start, end


def read(files: Files, split: str) -> Listing:
    """Clips with all their captions."""
    need_split(split, SPLITS)
    list_path = annotation(files, f"{split}_list.txt")
    path = _captions_file(files)
    captions = _read_lines(path) if path.suffix == ".txt" else _read_captions(path)
    records = []
    for name in read_names(list_path):
        if not captions.get(name):
            raise InputError(f"{list_path}: {path.name} has no caption for {name!r}")
        text, *more = captions[name]
        records.append(ClipRecord(Path(name), text, id=name, more_texts=more))
    return video_listing(records, files, annotations=[list_path, path])


def _captions_file(files: Files) -> Path:
    if path := optional_annotation(files, *CAPTIONS):
        return path
    if pickle := optional_annotation(files, "*.pkl"):
        raise InputError(
            f"{pickle}: a pickle can run any code, and is not read; give the publisher's {CAPTIONS[0]}, "
            f"or its content as JSON in {CAPTIONS[1]}: {{id: [captions]}}"
        )
    return annotation(files, *CAPTIONS)


def _read_lines(path: Path) -> dict[str, list[str]]:
    """Captions of every clip; what stands before the first of them is the header."""
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        name, *caption = line.split(maxsplit=1) or [""]
        if CLIP_NAME.fullmatch(name):
            captions.setdefault(name, []).append("".join(caption).strip())
        elif name and captions and not name.startswith("#"):
            raise InputError(f"{path}:{number}: expected a clip's name and a caption, found {line[:60]!r}")
    return captions


def _read_captions(path: Path) -> dict[str, list[str]]:
    captions = {}
    for name, texts in read_json(path).items():
        where = f"{path}: {name}"
        if not isinstance(texts, list):
            raise InputError(f"{where}: expected a list of captions, found {str(texts)[:60]!r}")
        captions[name] = [need_text(_joined(text), where=where) for text in texts]
    return captions


def _joined(caption: object) -> object:
    """A list of words as a text."""
    is_words = isinstance(caption, list) and all(isinstance(word, str) for word in caption)
    return " ".join(caption) if is_words else caption


SETS = (
    PublicSet(
        "msvd",
        "MSVD",
        "AllVideoDescriptions.txt, train_list.txt, val_list.txt, test_list.txt, <YouTube id>_<s>_<e>.avi",
        SPLITS,
        read,
    ),
)
