"""DiDeMo (Hendricks et al., ICCV 2017): videos of Flickr with moments that several people describe.

    train_data.json, val_data.json, test_data.json
        [{"annotation_id": 13, "video": "12090392@N02_13482799053_87ef417396.mov",
          "description": "a white bird is shown", "times": [[1, 1], [1, 1], [2, 3], [1, 1]], ...}]
    videos/12090392@N02_13482799053_87ef417396.mov      or .mp4, or .mov.mp4: copies are often encoded anew

Paragraph retrieval (Zhang et al., ECCV 2018; Liu et al., BMVC 2019): a record for each video, with all its
descriptions in the file's order, joined by blanks. The first 30 seconds count, for no one described the rest.
"""

from pathlib import Path

from coca_video.data.benchmarks.listing import Files, Listing, PublicSet, need_split, without_ending
from coca_video.data.benchmarks.video_texts import annotation, need_id, need_text, video_listing
from coca_video.data.manifest import ClipRecord
from coca_video.data.tables import need_keys, read_json

SPLITS = {"train": 8395, "val": 1065, "test": 1004}
DESCRIBED = [0.0, 30.0]  # seconds


def read(files: Files, split: str) -> Listing:
    """Paragraphs of the splits train, val and test."""
    need_split(split, SPLITS)
    path = annotation(files, f"{split}_data.json")
    descriptions, notes = _descriptions(path)
    records = [
        ClipRecord(Path(name), " ".join(filter(None, texts)), id=name, span=list(DESCRIBED))
        for name, texts in descriptions.items()
    ]
    return video_listing(records, files, annotations=[path], notes=notes, spellings=_spellings)


def _descriptions(path: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Of every video, in the file's order; an annotation that is listed again counts once, with a note."""
    descriptions: dict[str, list[str]] = {}
    seen, repeats = set(), 0
    for number, entry in enumerate(read_json(path, list)):
        where = f"{path}: entry {number}"
        need_keys(entry, ("video", "description"), where=where)
        annotation_id = need_id(entry.get("annotation_id", f"entry {number}"), where=where)
        name, text = need_id(entry["video"], where=where), need_text(entry["description"], where=where)
        said = (annotation_id, name, text)
        repeats += said in seen
        if said not in seen:
            descriptions.setdefault(name, []).append(text)
        seen.add(said)
    return descriptions, [f"{path}: {repeats} annotations listed again, which count once"] if repeats else []


def _spellings(name: str) -> tuple[str, ...]:
    return name, f"{name}.mp4", without_ending(name)


SETS = (
    PublicSet(
        "didemo",
        "DiDeMo",
        "train_data.json, val_data.json, test_data.json, videos under their Flickr names",
        SPLITS,
        read,
    ),
)
