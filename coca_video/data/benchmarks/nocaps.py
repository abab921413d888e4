"""NoCaps (Agrawal et al. 2019): captions of objects that COCO's captions do not speak of.

    nocaps_val_4500_captions.json, of COCO's form
        {"images": [{"id": 0, "open_images_id": "0013ea2087020901", "file_name": "0013ea2087020901.jpg",
                     "domain": "near-domain", ...}, ...],
         "annotations": [{"id": 0, "image_id": 0, "caption": "A baby is standing ..."}, ...]}
    0013ea2087020901.jpg

Each of the three domains is a part of its own, as well as all pictures together.
"""

from coca_video.data.benchmarks.coco_captions import read_coco_style
from coca_video.data.benchmarks.listing import Files, Listing, MediaIndex, PublicSet, need_split
from coca_video.data.benchmarks.picture_sets import listing_of
from coca_video.data.pictures import PICTURE_SUFFIXES
from coca_video.data.tables import need_keys
from coca_video.errors import InputError

# Of the validation split, as the publisher counts them (nocaps.org/download).
DOMAINS = {"in-domain": 648, "near-domain": 2938, "out-domain": 914}
SPELLINGS = {"out-of-domain": "out-domain"}


def read(files: Files, split: str) -> Listing:
    need_split(split, ["val"])
    patterns = "nocaps_val_4500_captions.json", "*nocaps*val*.json"
    path = files.annotation(*(f"{folder}{pattern}" for folder in ("", "**/") for pattern in patterns))
    records, notes = read_coco_style(path, _domain)
    media = MediaIndex(files.media, suffixes=PICTURE_SUFFIXES)
    return listing_of(
        records,
        lambda record: media.find(record.path.as_posix()),
        files=files,
        annotations=[path],
        example=lambda record: record.path.as_posix(),
        notes=notes,
        subsets={f"domain={domain}": number for domain, number in DOMAINS.items()},
    )


def _domain(image: dict, where: str) -> dict[str, str]:
    domain = need_keys(image, ["domain"], where=where)["domain"]
    if domain not in [*DOMAINS, *SPELLINGS]:
        raise InputError(f"{where}: the domain is {domain!r}, expected one of {', '.join(DOMAINS)}")
    return {"domain": SPELLINGS.get(domain, domain)}


SETS = (
    PublicSet(
        name="nocaps",
        title="NoCaps",
        layout="nocaps_val_4500_captions.json; the pictures of its validation split",
        splits={"val": sum(DOMAINS.values())},
        read=read,
    ),
)
