"""The card of a manifest, a file beside it: how complete it is, and what it was made from."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from coca_video.data.benchmarks.listing import Listing, PublicSet
from coca_video.errors import InputError
from coca_video.files import write_whole


@dataclass
class Card:
    dataset: str  # PublicSet.name
    title: str
    split: str
    num_expected: int | None  # by the publisher; None: nobody says
    num_listed: int
    num_found: int
    missing: list[str]  # ids
    annotations: dict[str, str]  # file name -> sha256
    classes: list[str]  # names and ids: see Listing
    class_ids: list[str]
    subsets: dict[str, int]  # see Listing
    notes: list[str]
    manifest_sha256: str = ""  # of the manifest that it was written for


def make_card(public_set: PublicSet, split: str, listing: Listing) -> Card:
    return Card(
        dataset=public_set.name,
        title=public_set.title,
        split=split,
        num_expected=public_set.splits.get(split),
        num_listed=listing.num_listed,
        num_found=len(listing.records),
        missing=listing.missing,
        annotations={path.name: file_hash(path) for path in listing.annotations},
        classes=listing.classes,
        class_ids=listing.class_ids or listing.classes,
        subsets=listing.subsets,
        notes=listing.notes,
    )


def card_path(manifest: Path) -> Path:
    return manifest.with_suffix(".card.json")


def write_card(manifest: Path, card: Card) -> Card:
    """The card as it was written: of this manifest."""
    card = replace(card, manifest_sha256=file_hash(manifest))
    write_whole(card_path(manifest), json.dumps(asdict(card), indent=1, ensure_ascii=False) + "\n")
    return card


def read_card(manifest: Path) -> Card | None:
    """None for a manifest without one. Raises InputError, naming the file, for one that is malformed."""
    path = card_path(manifest)
    if not path.exists():
        return None
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        return Card(**entry)
    except (OSError, ValueError, TypeError) as error:
        wanted = ", ".join(each.name for each in fields(Card))
        raise InputError(f"{path}: not the card of a manifest, which has {wanted} ({error})") from error


def file_hash(path: Path) -> str:
    """sha256, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
