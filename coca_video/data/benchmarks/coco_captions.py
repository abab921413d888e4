"""COCO captions (Chen et al. 2015) in the publisher's own splits, of 2014 and of 2017.

annotations/captions_val2017.json
    {"images": [{"id": 139, "file_name": "000000000139.jpg", ...}, ...],
     "annotations": [{"id": 1, "image_id": 139, "caption": "A woman stands in the dining area ..."}, ...]}
val2017/000000000139.jpg, or val2014/COCO_val2014_000000000139.jpg
"""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from coca_video.data.benchmarks.listing import (
    Files,
    Listing,
    MediaIndex,
    MissingLabels,
    PublicSet,
    need_split,
)
from coca_video.data.benchmarks.picture_sets import listing_of, need_id, need_list, need_text
from coca_video.data.manifest import ClipRecord
from coca_video.data.pictures import PICTURE_SUFFIXES
from coca_video.data.tables import need_keys, read_json
from coca_video.errors import InputError

SPLITS = {"train2014": 82_783, "val2014": 40_504, "train2017": 118_287, "val2017": 5_000}
PREFIXES = ("", "COCO_val2014_", "COCO_train2014_")  # a picture is the same whichever year's copy it is in


def read(files: Files, split: str) -> Listing:
    need_split(split, SPLITS)
    name = f"captions_{split}.json"
    path = files.annotation(name, f"annotations/{name}", f"**/{name}")
    records, notes = read_coco_style(path, lambda image, where: {})
    media = MediaIndex(files.media, suffixes=PICTURE_SUFFIXES)
    return listing_of(
        records,
        lambda record: find_coco_picture(media, record.path.name),
        files=files,
        annotations=[path],
        example=lambda record: record.path.name,
        notes=notes,
    )


def read_coco_style(
    path: Path, labels: Callable[[dict, str], dict[str, str]]
) -> tuple[list[ClipRecord], list[str]]:
    """One record a picture with all its captions, its path being its file name; notes on what is left out.

    labels: of an entry of "images"; its second argument begins messages. Raises InputError for what is
    malformed.
    """
    content = need_keys(read_json(path), ["images", "annotations"], where=str(path))
    captions = _captions_by_picture(need_list(content["annotations"], where=f"{path}: annotations"), path)
    records, without = [], []
    for number, image in enumerate(need_list(content["images"], where=f"{path}: images")):
        where = f"{path}: image {number}"
        need_keys(image, ["id", "file_name"], where=where)
        id = need_id(image["id"], where=where)
        name = need_text(image["file_name"], where=f"{where}: file_name")
        if texts := captions.pop(id, None):
            records.append(ClipRecord(Path(name), texts[0], labels(image, where), id, texts[1:]))
        else:
            without.append(id)
    if captions:
        raise InputError(
            f"{path}: there are captions of image {min(captions)!r}, which is not among its images"
        )
    if without and not records:
        raise MissingLabels(f"{path}: this split has no captions")
    notes = [f"{path}: {len(without)} images without captions are left out: {', '.join(without[:5])}"]
    return records, notes if without else []


def find_coco_picture(media: MediaIndex, name: str) -> Path | None:
    """A picture by any of the names that COCO's releases give it: they end in the same twelve digits."""
    number = Path(name).stem.rpartition("_")[2]
    return media.find(name) or next(
        (path for prefix in PREFIXES if (path := media.find(prefix + number)) is not None), None
    )


def _captions_by_picture(annotations: list, path: Path) -> dict[str, list[str]]:
    captions = defaultdict(list)
    for number, entry in enumerate(annotations):
        where = f"{path}: annotation {number}"
        need_keys(entry, ["image_id", "caption"], where=where)
        id = need_id(entry["image_id"], where=where)
        captions[id].append(need_text(entry["caption"], where=f"{where}: caption"))
    return captions


SETS = (
    PublicSet(
        name="coco_captions",
        title="COCO captions, the publisher's splits",
        layout="annotations/captions_val2017.json, ...; val2017/, ... with pictures",
        splits=SPLITS,
        read=read,
    ),
)
