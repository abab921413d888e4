"""From a publisher's files to manifests with cards, which training and evaluation read."""

from collections.abc import Iterable
from pathlib import Path

from coca_video.data.benchmarks.card import Card, make_card, write_card
from coca_video.data.benchmarks.listing import (
    Files,
    MissingAnnotation,
    MissingLabels,
    MissingMedia,
    PublicSet,
)
from coca_video.data.benchmarks.own import ENDINGS
from coca_video.data.manifest import write_manifest
from coca_video.errors import InputError
from coca_video.files import write_whole

NUM_PRINTED = 10  # missing ids


def prepare(
    public_set: PublicSet, files: Files, *, splits: Iterable[str], folder: Path
) -> tuple[list[tuple[Path, Card]], list[str]]:
    """Writes each split's manifest, its card and the list of what is missing, once all of them are read.

    splits: those wanted, which must be there; none = whichever are. Also gives a line for each split that was
    not asked for and has annotations, but no media or no labels. Raises InputError if there is no split at
    all.
    """
    wanted = list(splits)
    if not wanted and not public_set.splits:
        raise InputError(f"{public_set.name}: which split? it needs: {public_set.layout}")
    listings, reasons, skipped = {}, [], []
    for split in wanted or public_set.splits:
        try:
            listings[split] = public_set.read(files, split)
        except (MissingAnnotation, MissingMedia, MissingLabels) as error:
            if wanted:
                raise
            reasons.append(str(error))
            if not isinstance(error, MissingAnnotation):
                skipped.append(f"{public_set.name} {split}: left out: {error}")
    if not listings:
        raise InputError(f"{reasons[0]}; {public_set.name} needs: {public_set.layout}")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for split, listing in listings.items():
        manifest, card = (
            folder / f"{public_set.name}-{_as_name(split)}.jsonl",
            make_card(public_set, split, listing),
        )
        write_manifest(manifest, listing.records)
        card = write_card(manifest, card)
        _write_missing(manifest, card)
        written.append((manifest, card))
    return written, skipped


def _as_name(split: str) -> str:
    """A split of one's own may be the path of a table; a dot within its name is a part of it."""
    ending = Path(split).suffix
    return split.removesuffix(ending if ending in ENDINGS else "").replace("/", "-")


def missing_path(manifest: Path) -> Path:
    return manifest.with_suffix(".missing.txt")


def summary(manifest: Path, card: Card) -> list[str]:
    """What a user should know of a prepared split, line by line."""
    lines = [
        f"{card.dataset} {card.split}: {card.num_found:,} found of {card.num_listed:,} listed -> {manifest}"
    ]
    if card.num_expected is not None and card.num_listed != card.num_expected:
        lines.append(
            f"  the annotation files list {card.num_listed:,}, the official number is {card.num_expected:,}"
        )
    if card.missing:
        first = ", ".join(card.missing[:NUM_PRINTED]) + (", ..." if len(card.missing) > NUM_PRINTED else "")
        lines.append(f"  {len(card.missing):,} missing: {first}")
        lines.append(f"  all of them: {missing_path(manifest)}")
    return lines + [f"  note: {note}" for note in card.notes]


def _write_missing(manifest: Path, card: Card) -> None:
    if card.missing:
        write_whole(missing_path(manifest), "".join(f"{name}\n" for name in card.missing))
    else:
        missing_path(manifest).unlink(missing_ok=True)
