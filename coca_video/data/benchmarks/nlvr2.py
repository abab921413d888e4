"""NLVR2 (Suhr et al. 2019): is a statement about two photographs true?

    dev.json, an object a line
        {"identifier": "dev-850-0-0", "sentence": "One image shows two brown acorns.", "label": "True", ...}
    dev/dev-850-0-img0.png, dev/dev-850-0-img1.png    (at times in folders by number; not all are PNG)

An identifier is split, set of pictures, pair, sentence. Consistency asks whether a sentence is judged right
for all its pairs: the label `group` is the identifier without the pair, as in the publisher's
eval/metrics.py.
"""

from pathlib import Path

from coca_video.data.benchmarks.listing import Files, Listing, MediaIndex, PublicSet, need_split
from coca_video.data.benchmarks.picture_sets import listing_of, need_text
from coca_video.data.manifest import ClipRecord
from coca_video.data.pictures import PICTURE_SUFFIXES
from coca_video.data.tables import read_json_lines
from coca_video.errors import InputError

SPLITS = {"train": 86_373, "dev": 6_982, "test": 6_967}
FILE_NAMES = {"train": "train.json", "dev": "dev.json", "test": "test1.json"}
ANSWERS = ("True", "False")


def read(files: Files, split: str) -> Listing:
    need_split(split, SPLITS)
    name = FILE_NAMES[split]
    path = files.annotation(name, f"data/{name}", f"*/{name}", f"**/{name}")
    entries = read_json_lines(path, ["identifier", "sentence", "label"])
    media = MediaIndex(files.media, suffixes=PICTURE_SUFFIXES)
    return listing_of(
        [_record(entry, where=entry.where) for entry in entries],
        lambda record: _find_both(media, record),
        files=files,
        annotations=[path],
        example=lambda record: record.path.name,
    )


def _record(entry: dict, *, where: str) -> ClipRecord:
    identifier = need_text(entry["identifier"], where=f"{where}: identifier")
    parts = identifier.split("-")
    if len(parts) != 4:
        raise InputError(f"{where}: the identifier is {identifier!r}, expected one such as 'dev-850-0-0'")
    split, pictures, pair, sentence = parts
    left, right = (Path(f"{split}-{pictures}-{pair}-img{side}.png") for side in (0, 1))
    answer = str(entry["label"]).capitalize()
    if answer not in ANSWERS:
        raise InputError(f"{where}: the label is {entry['label']!r}, expected one of {', '.join(ANSWERS)}")
    labels = {"answer": answer, "group": f"{split}-{pictures}-{sentence}"}
    text = need_text(entry["sentence"], where=f"{where}: sentence")
    return ClipRecord(left, text, labels, identifier, second_path=right)


def _find_both(media: MediaIndex, record: ClipRecord) -> Path | None:
    """The first picture if the second is there too, which is then in the record."""
    left, right = media.find(record.path.name), media.find(record.second_path.name)
    if left is None or right is None:
        return None
    record.second_path = right
    return left


SETS = (
    PublicSet(
        name="nlvr2",
        title="NLVR2",
        layout="{train,dev,test1}.json; folders of pictures dev-850-0-img0.png, ...",
        splits=SPLITS,
        read=read,
    ),
)
