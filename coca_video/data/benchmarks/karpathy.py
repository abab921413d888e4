"""COCO and Flickr30k in the splits of Karpathy and Fei-Fei 2015.

    dataset_coco.json, dataset_flickr30k.json
        {"images": [{"filepath": "val2014", "filename": "COCO_val2014_000000391895.jpg", "split": "test",
                     "cocoid": 391895, "sentences": [{"raw": "A man with a red helmet ...", ...}, ...]}, ...]}
    val2014/COCO_val2014_000000391895.jpg       (`filepath` is COCO's alone; the folder may be left out)

All captions of a picture are kept, of COCO's up to seven: captioning is judged by all, retrieval is among the
first five (its setting max_texts). COCO's `train` includes what the file calls restval.
"""

from functools import partial
from pathlib import Path

from coca_video.data.benchmarks.listing import Files, Listing, MediaIndex, PublicSet, need_split
from coca_video.data.benchmarks.picture_sets import listing_of, need_id, need_list, need_text, some_texts
from coca_video.data.manifest import ClipRecord
from coca_video.data.pictures import PICTURE_SUFFIXES
from coca_video.data.tables import need_keys, read_json

SPLITS = {"train": {"train", "restval"}, "val": {"val"}, "test": {"test"}}  # -> what the file calls them


def read(files: Files, split: str, *, file_name: str) -> Listing:
    need_split(split, SPLITS)
    path = files.annotation(file_name, f"*/{file_name}", f"**/{file_name}")
    images = need_list(
        need_keys(read_json(path), ["images"], where=str(path))["images"], where=f"{path}: images"
    )
    records, with_blanks = [], []
    for number, image in enumerate(images):
        where = f"{path}: image {number}"
        need_keys(image, ["split", "filename", "sentences"], where=where)
        if need_text(image["split"], where=f"{where}: split") in SPLITS[split]:
            records.append(_record(image, where=where))
            if len(records[-1].texts) < len(image["sentences"]):
                with_blanks.append(records[-1].id)
    notes = [
        f"{path}: {len(with_blanks)} with a blank caption, which is left out: {', '.join(with_blanks[:5])}"
    ]
    media = MediaIndex(files.media, suffixes=PICTURE_SUFFIXES)
    return listing_of(
        records,
        lambda record: media.find(record.path.as_posix()),
        files=files,
        annotations=[path],
        example=lambda record: record.path.as_posix(),
        notes=notes if with_blanks else [],
    )


def _record(image: dict, *, where: str) -> ClipRecord:
    """Its path as the publisher gives it."""
    name = need_text(image["filename"], where=f"{where}: filename")
    where = f"{where} ({name})"
    raws = [
        need_keys(sentence, ["raw"], where=where)["raw"]
        for sentence in need_list(image["sentences"], where=f"{where}: sentences")
    ]
    first, *more = some_texts(raws, where=where)
    id = need_id(image["cocoid"], where=where) if "cocoid" in image else Path(name).stem
    folder = need_text(image.get("filepath") or ".", where=f"{where}: filepath")
    return ClipRecord(Path(folder, name), first, id=id, more_texts=more)


SETS = (
    PublicSet(
        name="coco",
        title="COCO, Karpathy's splits",
        layout="dataset_coco.json; train2014/ and val2014/ with pictures",
        splits={"train": 113_287, "val": 5_000, "test": 5_000},
        read=partial(read, file_name="dataset_coco.json"),
    ),
    PublicSet(
        name="flickr30k",
        title="Flickr30k, Karpathy's splits",
        layout="dataset_flickr30k.json; flickr30k-images/ with pictures",
        splits={"train": 29_000, "val": 1_014, "test": 1_000},
        read=partial(read, file_name="dataset_flickr30k.json"),
    ),
)
